"""The data set: strict reading, the order of sources, resumed downloads, batches. Nothing here leaves this machine."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from d2lkernels.data import DataError, DeviceLoader, DownloadError, fashion_mnist, load_fashion_mnist, read_idx
from d2lkernels.data.download import fetch, reachable

NAMES = tuple(fashion_mnist.FILES)


def idx_bytes(tensor: torch.Tensor) -> bytes:
    return struct.pack(f">HBB{tensor.dim()}I", 0, 8, tensor.dim(), *tensor.shape) + bytes(tensor.flatten().tolist())


def contents(train: int = 6, test: int = 4) -> dict[str, bytes]:
    """Four small files with the data set's names."""
    generator = torch.Generator().manual_seed(0)
    arrays = []
    for count in (train, test):
        arrays.append(torch.randint(0, 256, (count, 28, 28), generator=generator))
        arrays.append(torch.arange(count) % 10)
    return {name: gzip.compress(idx_bytes(array), mtime=0) for name, array in zip(NAMES, arrays, strict=True)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# Reading IDX files


def test_read_idx_gives_the_array_back(tmp_path):
    array = torch.arange(24).reshape(2, 3, 4)
    for name, content in (("a", idx_bytes(array)), ("a.gz", gzip.compress(idx_bytes(array)))):
        (tmp_path / name).write_bytes(content)
        result = read_idx(tmp_path / name, ndim=3)
        assert result.dtype == torch.uint8
        assert torch.equal(result.long(), array)


GOOD = idx_bytes(torch.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x", b"", "header of 12 bytes, but got 0 bytes"),
        ("x", GOOD[:9], "header of 12 bytes, but got 9"),
        ("x", b"\x00\x00\x0d\x02" + GOOD[4:], "starts with 00000802, but got 00000d02"),
        ("x", idx_bytes(torch.arange(12)) + b"more", "starts with 00000802, but got 00000801"),
        ("x", b"<!DOCTYPE html><html>", "starts with 00000802, but got 3c21444f"),
        ("x", GOOD[:-1], "hold 12 bytes after the header, for size .3, 4., but got 11: it is truncated"),
        ("x", GOOD + b"\0", "but got 13: it has bytes after its end"),
        ("x", struct.pack(">HBBII", 0, 8, 2, 0, 4), "at least one element, but got the size .0, 4."),
        ("x", struct.pack(">HBBII", 0, 8, 2, 2**32 - 1, 2**32 - 1), "is truncated"),
        ("x.gz", GOOD, "intact gzip file, but got a damaged one"),
        ("x.gz", gzip.compress(GOOD, mtime=0)[:-9], "whole gzip file, but got a truncated one"),
        ("x.gz", gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "intact gzip file, but got a damaged one"),
    ],
)
def test_read_idx_names_what_is_wrong(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, ndim=2)
    assert str(path) in str(caught.value)
    assert "Delete it and get it again" in str(caught.value)


def test_read_idx_says_that_a_file_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.gz to exist, but it is missing"):
        read_idx(tmp_path / "nowhere.gz", ndim=1)


# A given folder


@pytest.mark.parametrize("subfolder", ["", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_given_folder_is_read(tmp_path, subfolder, zipped):
    files = contents()
    if not zipped:
        files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    write(tmp_path / subfolder, files)
    data = load_fashion_mnist(tmp_path)
    assert data.train_images.shape == (6, 1, 28, 28)
    assert data.train_images.dtype == torch.uint8
    assert data.test_labels.tolist() == [0, 1, 2, 3]
    assert data.test_labels.dtype == torch.int64
    assert not data.is_sample
    assert data.notice == ""
    assert str(tmp_path) in data.source


def test_the_fingerprint_tells_data_sets_apart(tmp_path):
    one = load_fashion_mnist(write(tmp_path / "a", contents()))
    same = load_fashion_mnist(write(tmp_path / "b", contents()))
    other = load_fashion_mnist(write(tmp_path / "c", contents(train=7)))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def labels(*values: int) -> bytes:
    return gzip.compress(idx_bytes(torch.tensor(values)), mtime=0)


SMALL_IMAGES = gzip.compress(idx_bytes(torch.zeros(6, 8, 9).long()), mtime=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAMES[1]: None}, r"train-labels-idx1-ubyte\.gz is missing"),
        ({NAMES[1]: None, NAMES[2]: None}, r"train-labels-idx1-ubyte\.gz, t10k-images-idx3-ubyte\.gz are missing"),
        (dict.fromkeys(NAMES), "to hold the four files"),
        ({NAMES[0]: contents()[NAMES[0]][:100]}, r"train-images-idx3-ubyte\.gz to be a whole gzip file"),
        ({NAMES[3]: contents()[NAMES[2]]}, r"t10k-labels-idx1-ubyte\.gz to be an IDX file that starts with 00000801"),
        ({NAMES[3]: labels(1, 2)}, "as many labels as images, but got 2 labels and 4 images"),
        ({NAMES[3]: labels(1, 2, 3, 10)}, "labels from 0 to 9, but got 10"),
        (
            {NAMES[0]: gzip.compress(idx_bytes(torch.zeros(6, 8, 9).long()), mtime=0)},
            "images of 28 x 28, but got 8 x 9",
        ),
    ],
)
def test_a_given_folder_with_bad_files_is_refused(tmp_path, changes, message):
    files = {name: content for name, content in {**contents(), **changes}.items() if content is not None}
    write(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load_fashion_mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="to be a folder with the data set, but got nothing there"):
        load_fashion_mnist(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="but got a file"):
        load_fashion_mnist(tmp_path / "file")


# The embedded sample


def test_the_sample_is_balanced_and_says_what_it_is():
    notices = []
    data = load_fashion_mnist("sample", notify=notices.append)
    assert data.is_sample
    assert notices == [data.notice]
    assert "embedded sample of 900" in data.notice
    assert torch.bincount(data.train_labels).tolist() == [70] * 10
    assert torch.bincount(data.test_labels).tolist() == [20] * 10
    assert data.train_images.float().mean() > 10


@pytest.mark.parametrize("by_argument", [True, False])
def test_without_a_download_the_sample_is_used_and_the_reason_told(tmp_path, monkeypatch, by_argument):
    monkeypatch.setenv("D2LKERNELS_CACHE", str(tmp_path))
    monkeypatch.setenv("D2LKERNELS_DOWNLOAD", "1" if by_argument else "0")
    notices = []
    data = load_fashion_mnist(download=False if by_argument else None, notify=notices.append)
    assert data.is_sample
    assert len(notices) == 1
    assert "the download is switched off" in notices[0]
    assert str(tmp_path) in notices[0]


def test_without_a_network_the_sample_is_used_and_the_reason_told(tmp_path, monkeypatch):
    monkeypatch.setenv("D2LKERNELS_CACHE", str(tmp_path))
    notices = []
    data = load_fashion_mnist(download=True, mirrors=["http://127.0.0.1:9/", "rubbish/"], notify=notices.append)
    assert data.is_sample
    assert len(notices) == 1
    assert "none of the 2 download addresses can be reached" in notices[0]


# Downloads, from a server on this machine


class Mirror:
    """A web server that can break off, ignore ranges or send rubbish, and remembers what it was asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.break_after: int | None = None
        self.breaks = 0
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200 if self.path[1:] in mirror.files else 404)
                self.end_headers()

            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path[1:], wanted))
        content = self.files.get(handler.path[1:])
        if content is None:
            handler.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        body = content[start:]
        if self.break_after is not None and self.breaks > 0:
            self.breaks -= 1
            body = body[: self.break_after]
        handler.wfile.write(body)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


BODY = bytes(range(256)) * 40
SUM = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror({"f.bin": BODY})
    yield server
    server.close()


def test_fetch_downloads_and_then_leaves_the_file_alone(tmp_path, mirror):
    seen = []
    for _ in range(2):
        path = fetch("f.bin", SUM, tmp_path, [mirror.url], progress=lambda *arguments: seen.append(arguments))
        assert path.read_bytes() == BODY
    assert mirror.requests == [("f.bin", None)]
    assert seen[-1] == ("f.bin", len(BODY), len(BODY))
    assert [item.name for item in tmp_path.iterdir()] == ["f.bin"]


def test_fetch_resumes_what_an_earlier_run_has_left(tmp_path, mirror):
    (tmp_path / "f.bin.part").write_bytes(BODY[:1000])
    assert fetch("f.bin", SUM, tmp_path, [mirror.url]).read_bytes() == BODY
    assert mirror.requests == [("f.bin", "bytes=1000-")]


def test_fetch_asks_again_for_the_rest_when_a_server_breaks_off(tmp_path, mirror):
    mirror.break_after, mirror.breaks = 3000, 2
    assert fetch("f.bin", SUM, tmp_path, [mirror.url]).read_bytes() == BODY
    assert [wanted for _, wanted in mirror.requests] == [None, "bytes=3000-", "bytes=6000-"]


def test_a_half_finished_download_never_counts_as_a_file(tmp_path, mirror):
    mirror.break_after, mirror.breaks = 500, 100
    with pytest.raises(DownloadError, match="what has arrived is kept"):
        fetch("f.bin", SUM, tmp_path, [mirror.url])
    assert not (tmp_path / "f.bin").exists()
    left = (tmp_path / "f.bin.part").read_bytes()
    assert 0 < len(left) < len(BODY)
    assert BODY.startswith(left)
    mirror.breaks = 0
    assert fetch("f.bin", SUM, tmp_path, [mirror.url]).read_bytes() == BODY
    assert mirror.requests[-1] == ("f.bin", f"bytes={len(left)}-")


def test_fetch_starts_again_where_a_server_knows_no_ranges(tmp_path, mirror):
    mirror.ranges = False
    (tmp_path / "f.bin.part").write_bytes(b"something else")
    assert fetch("f.bin", SUM, tmp_path, [mirror.url]).read_bytes() == BODY


@pytest.mark.parametrize("left", [BODY, BODY + b"too long", b"\0" * len(BODY), b"\0" * 100])
def test_fetch_gets_over_any_part_file(tmp_path, mirror, left):
    (tmp_path / "f.bin.part").write_bytes(left)
    for _ in range(2):  # a part with wrong bytes costs one failed attempt, after which nothing is left of it
        try:
            path = fetch("f.bin", SUM, tmp_path, [mirror.url])
            break
        except DownloadError as error:
            assert "MD5" in str(error)
            assert not (tmp_path / "f.bin").exists()
    assert path.read_bytes() == BODY


def test_fetch_goes_on_to_the_next_mirror(tmp_path, mirror):
    bad = Mirror({"f.bin": BODY[:-1] + b"!"})
    try:
        mirrors = ["http://127.0.0.1:9/", bad.url, mirror.url]
        assert fetch("f.bin", SUM, tmp_path, mirrors).read_bytes() == BODY
        assert reachable([*mirrors, mirror.url + "absent/"], "f.bin") == [bad.url, mirror.url]
        with pytest.raises(DownloadError, match="another MD5 sum"):
            fetch("f.bin", SUM, tmp_path / "other", [bad.url])
        assert not (tmp_path / "other" / "f.bin").exists()
    finally:
        bad.close()


def test_fetch_says_that_the_folder_cannot_be_written(tmp_path, mirror):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch("f.bin", SUM, tmp_path / "file", [mirror.url])


def test_the_data_set_is_downloaded_once_and_then_cached(tmp_path, monkeypatch):
    files = contents()
    monkeypatch.setenv("D2LKERNELS_CACHE", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "FILES", {name: hashlib.md5(files[name]).hexdigest() for name in NAMES})
    server = Mirror(files)
    notices = []
    arguments = {"download": True, "mirrors": [server.url], "notify": notices.append}
    try:
        assert len(load_fashion_mnist(**arguments).train_images) == 6
        assert len(server.requests) == 4
        assert str(tmp_path) in load_fashion_mnist(**arguments).source
        assert len(server.requests) == 4
        assert notices == []

        damaged = tmp_path / "fashion-mnist" / NAMES[2]
        damaged.write_bytes(files[NAMES[2]][:-4])
        assert not load_fashion_mnist(**arguments).is_sample
        assert len(server.requests) == 5
        assert len(notices) == 1
        assert f"{damaged} is damaged" in notices[0]
        assert damaged.read_bytes() == files[NAMES[2]]
    finally:
        server.close()


# Batches


def loader(count: int = 10, batch_size: int = 4, **options) -> DeviceLoader:
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1).expand(count, 1, 6, 6).contiguous()
    return DeviceLoader(images, torch.arange(count), batch_size, **options)


def order(source: DeviceLoader) -> list[int]:
    return [int(label) for _, batch in source for label in batch]


def test_every_image_comes_once_with_its_label():
    for images, batch in loader(shuffle=True):
        assert images.dtype == torch.float32
        assert batch.dtype == torch.int64
        assert torch.equal((images[:, 0, 3, 3] * 255).round().long(), batch)
    assert sorted(order(loader(shuffle=True))) == list(range(10))
    assert order(loader()) == list(range(10))


def test_the_order_comes_from_the_seed_and_changes_by_epoch():
    one, same, other = (loader(count=50, shuffle=True, seed=seed) for seed in (3, 3, 4))
    torch.manual_seed(0)
    first = order(one)
    torch.manual_seed(1)
    assert order(same) == first
    assert order(other) != first
    second = order(one)
    assert second != first
    assert order(same) == second


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_length_and_last_batch(drop_last, sizes):
    source = loader(drop_last=drop_last)
    assert len(source) == len(sizes)
    assert [len(batch) for _, batch in source] == sizes


def test_images_are_scaled_and_channels_last():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(2, 2, 4, 1)
    for channels in (1, 2):
        for memory_format in (torch.channels_last, torch.contiguous_format):
            for dtype in (torch.float32, torch.bfloat16):
                source = DeviceLoader(
                    pixels[:, :channels], torch.zeros(2), 2, dtype=dtype, memory_format=memory_format, resize=None
                )
                images, _ = next(iter(source))
                expected = (pixels[:, :channels].float() / 255).to(dtype)
                assert torch.equal(images, expected)
                # With one channel both formats fit, and only the strides tell which one operators will choose.
                like = torch.empty(images.shape, memory_format=memory_format)
                assert images.stride() == like.stride()


@pytest.mark.parametrize("size", [5, 28, 47, 96])
def test_resize_is_bilinear_interpolation(size):
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result, _ = next(iter(DeviceLoader(images, torch.zeros(3), 3, resize=size)))
    expected = F.interpolate(images.double() / 255, (size, size), mode="bilinear", antialias=size < 28)
    assert result.shape == (3, 1, size, size)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (result.double() - expected).abs().max() < 1e-5


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4])
def test_a_loader_goes_on_where_another_stood(taken):
    whole, broken, resumed = (loader(shuffle=True, seed=seed) for seed in (1, 1, 2))
    expected = order(whole) + order(whole)
    seen: list[int] = []
    for _, batch in broken:
        seen += batch.tolist()
        if broken.next_batch == taken:
            break
    if taken == 4:  # past the first batch of the second epoch
        seen += next(iter(broken))[1].tolist()
    resumed.load_state_dict(broken.state_dict())
    while len(seen) < len(expected):
        seen += order(resumed)
    assert seen == expected


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "images to be uint8", {"images": torch.zeros(4, 1, 6, 6)}),
        (TypeError, "of size .N, C, H, W., but got", {"images": torch.zeros(4, 6, 6, dtype=torch.uint8)}),
        (ValueError, "labels to have size .4.", {"labels": torch.zeros(3)}),
        (ValueError, "batch_size to be at least 1, but got 0", {"batch_size": 0}),
        (ValueError, "resize to be at least 1, but got -1", {"resize": -1}),
        (ValueError, "at least one batch, but got 4 images", {"batch_size": 5, "drop_last": True}),
        (ValueError, "at least one batch", {"images": torch.zeros(0, 1, 6, 6).byte(), "labels": torch.zeros(0)}),
    ],
)
def test_loader_errors(error, message, change):
    arguments = {"images": torch.zeros(4, 1, 6, 6).byte(), "labels": torch.zeros(4), "batch_size": 2, **change}
    with pytest.raises(error, match=message):
        DeviceLoader(**arguments)
