"""The book's names: all there, with the values that the book asserts, on every device, with or without extras."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from cases import ONE_PER_TYPE

from d2lkernels import d2l, models, nn, ops

EXPORTED = {
    "use_svg_display": "",
    "set_figsize": "figsize",
    "set_axes": "axes xlabel ylabel xlim ylim xscale yscale legend",
    "plot": "X Y xlabel ylabel legend xlim ylim xscale yscale fmts figsize axes",
    "Timer": "",
    "synthetic_data": "w b num_examples",
    "linreg": "X w b",
    "squared_loss": "y_hat y",
    "sgd": "params lr batch_size",
    "load_array": "data_arrays batch_size is_train",
    "get_fashion_mnist_labels": "labels",
    "show_images": "imgs num_rows num_cols titles scale",
    "get_dataloader_workers": "",
    "load_data_fashion_mnist": "batch_size resize",
    "accuracy": "y_hat y",
    "evaluate_accuracy": "net data_iter",
    "Accumulator": "n",
    "train_epoch_ch3": "net train_iter loss updater",
    "Animator": "xlabel ylabel legend xlim ylim xscale yscale fmts nrows ncols figsize",
    "train_ch3": "net train_iter test_iter loss num_epochs updater",
    "predict_ch3": "net test_iter n",
    "evaluate_loss": "net data_iter loss",
    "DATA_HUB": None,
    "DATA_URL": None,
    "download": "name cache_dir",
    "download_extract": "name folder",
    "download_all": "",
    "try_gpu": "i",
    "try_all_gpus": "",
    "corr2d": "X K",
    "evaluate_accuracy_gpu": "net data_iter device",
    "train_ch6": "net train_iter test_iter num_epochs lr device",
    "Residual": "input_channels num_channels use_1x1conv strides",
}
"""The names that the Chinese edition exports for chapters 2 to 7, with their arguments."""

UNEXPORTED = {
    "data_iter": "batch_size features labels",
    "softmax": "X",
    "cross_entropy": "y_hat y",
    "init_weights": "m",
    "relu": "X",
    "l2_penalty": "w",
    "dropout_layer": "X dropout",
    "log_rmse": "net features labels",
    "get_k_fold_data": "k i X y",
    "k_fold": "k X_train y_train num_epochs learning_rate weight_decay batch_size",
    "train_and_pred": "train_features test_features train_labels test_data num_epochs lr weight_decay batch_size",
    "CenteredLayer": "",
    "MyLinear": "in_units units",
    "MySequential": "args",
    "Conv2D": "kernel_size",
    "comp_conv2d": "conv2d X",
    "corr2d_multi_in": "X K",
    "corr2d_multi_in_out": "X K",
    "corr2d_multi_in_out_1x1": "X K",
    "pool2d": "X pool_size mode",
    "vgg_block": "num_convs in_channels out_channels",
    "vgg": "conv_arch",
    "nin_block": "in_channels out_channels kernel_size strides padding",
    "Inception": "in_channels c1 c2 c3 c4",
    "batch_norm": "X gamma beta moving_mean moving_var eps momentum",
    "BatchNorm": "num_features num_dims",
    "resnet_block": "input_channels num_channels num_residuals first_block",
    "conv_block": "input_channels num_channels",
    "DenseBlock": "num_convs input_channels num_channels",
    "transition_block": "input_channels num_channels",
}
"""What the chapters define and never export."""

ALIASES = [
    "ones",
    "zeros",
    "tensor",
    "arange",
    "meshgrid",
    "sin",
    "sinh",
    "cos",
    "cosh",
    "tanh",
    "linspace",
    "exp",
    "log",
    "normal",
    "rand",
    "randn",
    "matmul",
    "int32",
    "float32",
    "concat",
    "stack",
    "abs",
    "eye",
    "numpy",
    "size",
    "reshape",
    "to",
    "reduce_sum",
    "argmax",
    "astype",
    "transpose",
    "reduce_mean",
    "nn_Module",
]


@pytest.mark.parametrize("name", [*EXPORTED, *UNEXPORTED])
def test_the_books_name_takes_the_books_arguments(name):
    found = getattr(d2l, name)
    assert name in d2l.__all__
    expected = {**EXPORTED, **UNEXPORTED}[name]
    if expected is None:
        return
    assert inspect.getdoc(found)
    parameters = inspect.signature(found).parameters
    assert list(parameters)[: len(expected.split())] == expected.split()
    for extra in list(parameters.values())[len(expected.split()) :]:  # the book's calls need not know of them
        assert extra.default is not inspect.Parameter.empty or extra.kind in (extra.VAR_KEYWORD, extra.VAR_POSITIONAL)


@pytest.mark.parametrize("name", ALIASES)
def test_the_alias_is_there(name):
    assert hasattr(d2l, name) and name in d2l.__all__


def test_aliases_do_what_they_stand_for():
    x = d2l.reshape(d2l.arange(6, dtype=d2l.float32), (2, 3)).requires_grad_()
    assert d2l.numpy(x).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert d2l.size(x) == 6
    assert d2l.reduce_sum(x).item() == 15 and d2l.reduce_mean(x, axis=0).tolist() == [1.5, 2.5, 3.5]
    assert d2l.argmax(x, axis=1).tolist() == [2, 2]
    assert d2l.astype(x, d2l.int32).dtype == torch.int32
    assert d2l.transpose(x).shape == (3, 2) and d2l.concat((x, x), dim=1).shape == (2, 6)
    assert d2l.to(x, torch.float64).dtype == torch.float64


def test_the_books_tests_of_types_hold_for_our_layers():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    assert [type(m) == nn.Conv2d or type(m) == nn.Linear for m in net] == [True, False, False, True]  # noqa: E721
    assert type(models.build("lenet")[0]) == nn.Conv2d  # noqa: E721
    before = [m.weight.clone() for m in (net[0], net[3])]

    def init_weights(m):
        if type(m) == nn.Linear or type(m) == nn.Conv2d:  # noqa: E721
            nn.init.xavier_uniform_(m.weight)

    net.apply(init_weights)
    assert all(not torch.equal(a, m.weight) for a, m in zip(before, (net[0], net[3]), strict=True))


def test_importing_the_helpers_imports_torch_alone():
    code = (
        "import sys; from d2lkernels import d2l; d2l.Animator(legend=['a']).add(1, 2.0);"
        "print(sorted({'matplotlib', 'pandas', 'IPython', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["x 1: a 2.000", "[]"]


@pytest.mark.parametrize(
    "module, call",
    [
        ("matplotlib", lambda: d2l.plot([1, 2, 3])),
        ("matplotlib", lambda: d2l.show_images([torch.zeros(2, 2)], 1, 1)),
        ("matplotlib", lambda: d2l.plt),
        ("matplotlib", lambda: d2l.Animator().save("x.png")),
        ("pandas", lambda: d2l.read_csv("x.csv")),
        ("pandas", lambda: d2l.pd),
    ],
)
def test_a_missing_extra_is_explained_with_the_command(monkeypatch, module, call):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # which makes the import fail
    with pytest.raises(d2l.MissingPackageError, match=rf"needs the package {module}.*pip install {module}"):
        call()


# ---- chapters 6 and 7: the values of the book ----


@pytest.fixture(params=ONE_PER_TYPE, ids=str)
def device(request):
    return request.param


def on(device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device.type)


def test_corr2d_and_pool2d_give_the_books_values(device):
    X, K = on(device, torch.arange(9.0).reshape(3, 3)), on(device, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert d2l.corr2d(X, K).tolist() == [[19, 25], [37, 43]]
    assert d2l.corr2d(X, K).device == X.device
    assert d2l.corr2d(X.long(), K.long()).tolist() == [[19, 25], [37, 43]]
    assert d2l.pool2d(X, (2, 2)).tolist() == [[4, 5], [7, 8]]
    assert d2l.pool2d(X, (2, 2), "avg").tolist() == [[2, 3], [5, 6]]


def test_channels_give_the_books_values(device):
    X = on(device, torch.stack([torch.arange(9.0), torch.arange(1.0, 10.0)]).reshape(2, 3, 3))
    K = on(device, torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]]))
    assert d2l.corr2d_multi_in(X, K).tolist() == [[56, 72], [104, 120]]
    Y = d2l.corr2d_multi_in_out(X, torch.stack((K, K + 1, K + 2)))
    assert Y.tolist() == [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]
    X, K = on(device, torch.randn(3, 3, 3)), on(device, torch.randn(2, 3, 1, 1))
    assert (d2l.corr2d_multi_in_out_1x1(X, K) - d2l.corr2d_multi_in_out(X, K)).abs().sum() < 1e-5


@pytest.mark.parametrize(
    "arguments, shape",
    [
        ({"kernel_size": 3, "padding": 1}, (8, 8)),
        ({"kernel_size": (5, 3), "padding": (2, 1)}, (8, 8)),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (4, 4)),
        ({"kernel_size": (3, 5), "padding": (0, 1), "stride": (3, 4)}, (2, 2)),
    ],
)
def test_padding_and_stride_give_the_books_shapes(arguments, shape):
    assert d2l.comp_conv2d(nn.Conv2d(1, 1, **arguments), torch.rand(8, 8)).shape == shape


def test_pooling_layers_give_the_books_values():
    X = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert nn.MaxPool2d(3)(X).tolist() == [[[[10]]]]
    assert nn.MaxPool2d(3, padding=1, stride=2)(X).tolist() == [[[[5, 7], [13, 15]]]]
    assert nn.MaxPool2d((2, 3), stride=(2, 3), padding=(0, 1))(X).tolist() == [[[[5, 7], [13, 15]]]]
    both = nn.MaxPool2d(3, padding=1, stride=2)(torch.cat((X, X + 1), 1))
    assert both.tolist() == [[[[5, 7], [13, 15]], [[6, 8], [14, 16]]]]


def test_the_edge_kernel_is_learned():
    torch.manual_seed(0)
    X = torch.ones(6, 8)
    X[:, 2:6] = 0
    Y = d2l.corr2d(X, torch.tensor([[1.0, -1.0]]))
    assert Y[0].tolist() == [0, 1, 0, 0, 0, -1, 0]
    layer = nn.Conv2d(1, 1, kernel_size=(1, 2), bias=False)
    for _ in range(30):
        layer.zero_grad()
        (layer(X[None, None]) - Y[None, None]).square().sum().backward()
        with torch.no_grad():
            layer.weight -= 3e-2 * layer.weight.grad
    assert torch.allclose(layer.weight.flatten(), torch.tensor([1.0, -1.0]), atol=0.05)


@pytest.mark.parametrize("size", [(6, 3), (4, 3, 5, 5)])
def test_batch_norm_keeps_the_books_conventions(device, size):
    torch.manual_seed(0)
    shape = (1, 3, 1, 1)[: len(size)]
    X = torch.randn(size, dtype=torch.float64) * 2 + 1
    gamma, beta = torch.rand(shape).double() + 0.5, torch.randn(shape).double()
    mean, var = torch.randn(shape).double(), torch.rand(shape).double()
    axes = [0, *range(2, len(size))]
    batch_mean, batch_var = X.mean(axes, keepdim=True), X.var(axes, correction=0, keepdim=True)
    arguments = [on(device, tensor) for tensor in (X, gamma, beta, mean, var)]
    Y, new_mean, new_var = d2l.batch_norm(*arguments, eps=1e-5, momentum=0.9)
    close = {"rtol": 1e-9, "atol": 1e-9}
    expected = (X - batch_mean) / (batch_var + 1e-5).sqrt() * gamma + beta
    torch.testing.assert_close(Y.cpu(), expected, **close)
    torch.testing.assert_close(new_mean.cpu(), 0.9 * mean + 0.1 * batch_mean, **close)
    torch.testing.assert_close(new_var.cpu(), 0.9 * var + 0.1 * batch_var, **close)
    with torch.no_grad():  # the book's sign that this is inference
        Y, new_mean, new_var = d2l.batch_norm(*arguments, eps=1e-5, momentum=0.9)
    torch.testing.assert_close(Y.cpu(), (X - mean) / (var + 1e-5).sqrt() * gamma + beta, **close)
    assert torch.equal(new_mean.cpu(), mean) and torch.equal(new_var.cpu(), var)


def test_a_batch_norm_layer_keeps_and_saves_its_statistics():
    torch.manual_seed(0)
    layer, X = d2l.BatchNorm(3, num_dims=4), torch.randn(4, 3, 5, 5) + 2
    layer(X).sum().backward()
    assert set(layer.state_dict()) == {"gamma", "beta", "moving_mean", "moving_var"}
    torch.testing.assert_close(layer.moving_mean.flatten(), 0.1 * X.mean((0, 2, 3)))
    moved = layer.moving_mean.clone()
    layer.eval()(X)  # with gradients enabled, and yet in inference
    assert torch.equal(layer.moving_mean, moved)


def test_blocks_have_the_books_shapes():
    X = torch.rand(2, 3, 8, 8)
    assert d2l.vgg_block(1, 3, 4)(X).shape == (2, 4, 4, 4)
    assert d2l.nin_block(3, 4, 3, 1, 1)(X).shape == (2, 4, 8, 8)
    assert d2l.Inception(3, 2, (2, 4), (2, 4), 2)(X).shape == (2, 12, 8, 8)
    assert nn.Sequential(*d2l.resnet_block(3, 6, 2))(X).shape == (2, 6, 4, 4)
    assert d2l.DenseBlock(2, 3, 10)(X).shape == (2, 23, 8, 8)
    assert d2l.transition_block(3, 10)(X).shape == (2, 10, 4, 4)
    with torch.device("meta"):
        net = d2l.vgg([(1, 16), (1, 32), (2, 64), (2, 128), (2, 128)])
    assert sum(p.numel() for p in net.parameters()) == 43_093_322


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_keeps_the_mean(device, p):
    torch.manual_seed(0)
    X = on(device, torch.ones(100, 100))
    Y = d2l.dropout_layer(X, p)
    assert Y.device == X.device
    assert set(Y.unique().tolist()) <= {0.0, 1 / (1 - p) if p < 1 else 0.0}
    assert abs(Y.mean().item() - (p < 1)) < 0.05


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: d2l.corr2d(torch.ones(1, 2, 3), torch.ones(2, 2)), "corr2d.*X to have 2 dim.*1, 2, 3"),
        (lambda: d2l.corr2d([[1.0]], torch.ones(2, 2)), "corr2d.*X to be a Tensor, but got list"),
        (lambda: d2l.pool2d(torch.ones(3, 3), (2, 2), "min"), "mode to be 'max' or 'avg', but got 'min'"),
        (lambda: d2l.dropout_layer(torch.ones(3), 1.5), "between 0 and 1, but got 1.5"),
        (lambda: d2l.BatchNorm(3, 3), "num_dims to be 2 or 4, but got 3"),
        (lambda: d2l.corr2d_multi_in_out_1x1(torch.ones(2, 3, 3), torch.ones(1, 3, 1, 1)), r"\[K, 2, 1, 1\]"),
        (lambda: d2l.download("kaggle_house_trian"), "one of kaggle_house_train, .*but got 'kaggle_house_trian'"),
        (lambda: d2l.get_k_fold_data(1, 0, torch.ones(4, 1), torch.ones(4)), "k to be between 2 and the 4 rows"),
        (lambda: d2l.Accumulator(2).add(1), "expected 2 values, but got 1"),
        (lambda: d2l.plot([1, 2, 3], [1, 2]), "as many points"),
    ],
)
def test_bad_arguments_are_said(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_our_kernels_are_behind_the_names():
    """Nothing that the names promise to compute is left to native torch."""
    assert d2l.nn is nn and d2l.F is nn.functional
    calls = []
    original = ops.conv2d
    ops.conv2d = lambda *arguments, **options: calls.append(1) or original(*arguments, **options)
    try:
        d2l.corr2d(torch.ones(3, 3), torch.ones(2, 2))
        d2l.corr2d_multi_in(torch.ones(1, 3, 3), torch.ones(1, 2, 2))
    finally:
        ops.conv2d = original
    assert len(calls) == 2
