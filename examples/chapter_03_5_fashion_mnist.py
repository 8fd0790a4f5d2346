"""Section 3.5: Fashion-MNIST: reading it, looking at it, and how long one pass over it takes."""

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def main(example):
    train_iter, test_iter = example.fashion_mnist(256)
    print(
        len(train_iter.images),
        "training and",
        len(test_iter.images),
        "test images of",
        tuple(train_iter.images[0].shape),
    )
    X, y = next(iter(train_iter))
    example.images("images", X[:18], 2, 9, d2l.get_fashion_mnist_labels(y[:18]))
    timer = d2l.Timer()
    count = 0
    for X, _ in train_iter:
        count += len(X)
    seconds = timer.stop()
    resized, _ = next(iter(example.fashion_mnist(32, resize=64)[0]))
    print("resized:", tuple(resized.shape), resized.dtype)
    return {"images": count, "pass_seconds": seconds, "images_per_second": round(count / seconds)}


if __name__ == "__main__":
    run_script(main)
