"""Section 5.6: devices: where tensors and models live, and why metrics should stay there."""

import torch

from d2lkernels import config, d2l, models
from d2lkernels.d2l.example import run_script


def main(example):
    print(config.info_text())
    devices = d2l.try_all_gpus()
    print("devices:", devices, "GPU 10 or else:", d2l.try_gpu(10))
    device = example.device
    X = torch.ones(2, 3, device=device)
    Z = X.to(devices[-1])  # no copy if it is there already
    net = models.build("lenet").to(device)
    images = torch.rand(example.choose(256, 8), 1, 28, 28, device=device)
    output = net(images)

    # A sum that is read after each batch makes the device wait for the host each time; one that stays there, once.
    batches = [torch.rand(64, 10, device=device) for _ in range(example.choose(200, 10))]
    labels = torch.randint(0, 10, (64,), device=device)
    timer, total, metric = d2l.Timer(), 0.0, d2l.Accumulator(1)
    for batch in batches:
        total += d2l.accuracy(batch, labels)
    read_each_time = timer.stop()
    timer.start()
    for batch in batches:
        metric.add((batch.argmax(dim=1) == labels).sum())
    equal = metric[0] == total
    read_once = timer.stop()
    return {
        "device": str(device),
        "gpus": torch.cuda.device_count(),
        "moved_without_copy": Z.data_ptr() == X.data_ptr(),
        "output_device": str(output.device),
        "metrics_equal": equal,
        "seconds_read_each_time": read_each_time,
        "seconds_read_once": read_once,
    }


if __name__ == "__main__":
    run_script(main)
