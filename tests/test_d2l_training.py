"""The book's training loops, data and metrics of chapters 3 to 6."""

from __future__ import annotations

import pytest
import torch

from d2lkernels import d2l, models, nn


def test_linear_regression_from_scratch_finds_the_weights():
    torch.manual_seed(0)
    true_w, true_b = torch.tensor([2, -3.4]), 4.2
    features, labels = d2l.synthetic_data(true_w, true_b, 1000)
    assert features.shape == (1000, 2) and labels.shape == (1000, 1)
    w, b = torch.zeros(2, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    for _ in range(3):
        for X, y in d2l.data_iter(10, features, labels):
            d2l.squared_loss(d2l.linreg(X, w, b), y).sum().backward()
            d2l.sgd([w, b], 0.03, len(X))
    assert (w.detach().reshape(-1) - true_w).abs().max() < 0.01 and abs(b.item() - true_b) < 0.01
    assert d2l.evaluate_loss(lambda X: d2l.linreg(X, w, b), [(features, labels)], d2l.squared_loss) < 1e-4


def test_softmax_and_cross_entropy_agree_with_torch():
    X, y = torch.randn(5, 7) * 50, torch.tensor([0, 6, 3, 2, 1])
    assert torch.allclose(d2l.softmax(X).sum(1), torch.ones(5))
    X = X / 50
    torch.testing.assert_close(
        d2l.cross_entropy(d2l.softmax(X), y), nn.functional.cross_entropy(X, y, reduction="none")
    )


def test_accuracy_counts_and_accumulators_add():
    y_hat, y = torch.tensor([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), torch.tensor([0, 2])
    assert d2l.accuracy(y_hat, y) == 1.0
    assert d2l.accuracy(torch.tensor([0, 1]), y) == 1.0
    metric = d2l.Accumulator(2)
    metric.add(torch.tensor([[0.5]], requires_grad=True), 2)
    metric.add(1, torch.tensor(3))
    assert metric.data == [1.5, 5.0] and len(metric) == 2
    metric.reset()
    assert metric[0] == 0.0


def test_fashion_mnist_starts_each_epoch_at_the_first_batch_and_follows_the_seed():
    torch.manual_seed(0)
    train_iter, test_iter = d2l.load_data_fashion_mnist(256, resize=32, root="sample")
    assert (len(train_iter), len(test_iter)) == (3, 1)
    X, _ = next(iter(train_iter))
    assert X.shape == (256, 1, 32, 32) and X.dtype == torch.float32 and X.min() >= 0 and X.max() <= 1
    orders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        orders.append(torch.cat([labels for _, labels in train_iter]))
    assert all(len(order) == 700 for order in orders)
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert d2l.get_fashion_mnist_labels([0, 9]) == ["t-shirt", "ankle boot"]
    assert d2l.get_dataloader_workers() == 0


def test_training_loops_of_chapters_3_and_6_learn(capsys):
    torch.manual_seed(0)
    train_iter, test_iter = d2l.load_data_fashion_mnist(20, root="sample")
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    net.apply(d2l.init_weights)
    loss = nn.CrossEntropyLoss(reduction="none")
    result = d2l.train_ch3(net, train_iter, test_iter, loss, 15, torch.optim.SGD(net.parameters(), lr=0.1))
    assert result.loss < 0.5 and result.train_acc > 0.75 and result.test_acc > 0.7
    assert capsys.readouterr().out.splitlines()[-1].startswith("epoch 15: train loss 0.")
    assert len(result.animator.Y[2]) == 15
    torch.manual_seed(0)
    result = d2l.train_ch6(models.build("bn_lenet"), train_iter, test_iter, 6, 0.5, d2l.try_gpu())
    assert result.loss < 1.0 and result.test_acc > 0.5 and result.examples_per_second > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training on") and len([line for line in lines if line.startswith("epoch ")]) == 6


def test_train_ch3_warns_where_the_book_would_stop():
    with pytest.warns(RuntimeWarning, match="expected a loss below 0.5"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        batches = d2l.load_data_fashion_mnist(256, root="sample")
        d2l.train_ch3(net, *batches, nn.CrossEntropyLoss(reduction="none"), 1, torch.optim.SGD(net.parameters(), 0.01))


def test_evaluation_leaves_the_mode_of_the_module():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    batches = [(torch.ones(3, 1, 2, 2), torch.zeros(3).long())]
    for evaluate in (d2l.evaluate_accuracy, d2l.evaluate_accuracy_gpu):
        assert evaluate(net, batches) in (0.0, 1.0)
        assert net.training
    with pytest.raises(ValueError, match="at least one batch"):
        d2l.evaluate_accuracy(net, [])


def test_predictions_are_shown_and_returned(capsys, tmp_path):
    d2l.save_figures(tmp_path)
    try:
        answers = d2l.predict_ch3(
            nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), d2l.load_data_fashion_mnist(8, root="sample")[1]
        )
    finally:
        d2l.save_figures(None)
    assert len(answers) == 6 and len(capsys.readouterr().out.splitlines()) == 6
    assert (tmp_path / "01-images.png").read_bytes()[:4] == b"\x89PNG"
