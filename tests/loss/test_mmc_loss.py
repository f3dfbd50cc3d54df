import numpy as np
import pytest
import torch

from loss.mmc_loss import mmc_image_loss, mmc_loss


def drawn(rows=4, columns=7, scale=5.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(rows, columns, generator=generator)
    return logits, (torch.rand(rows, columns, generator=generator) < 0.3).long()


def expected(logits, targets):
    """Eq. (13), one present label at a time."""
    p, y = logits.double().numpy(), targets.numpy()
    total = np.exp(p).sum()
    return -np.mean([np.log(np.exp(p[b, j]) / total) for b, j in zip(*np.nonzero(y), strict=True)])


def test_loss_is_equation_13():
    logits, targets = drawn()
    np.testing.assert_allclose(mmc_loss(logits, targets).item(), expected(logits, targets), rtol=1e-5)


def test_images_without_labels_enter_the_denominator():
    logits, targets = drawn()
    targets[1] = 0
    np.testing.assert_allclose(mmc_loss(logits, targets).item(), expected(logits, targets), rtol=1e-5)
    assert mmc_loss(logits, targets) > mmc_loss(logits[[0, 2, 3]], targets[[0, 2, 3]])


def test_no_present_label_gives_zero_loss_and_zero_gradient():
    logits = drawn()[0].requires_grad_()
    loss = mmc_loss(logits, torch.zeros(4, 7))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 7))


def test_constant_added_to_all_logits_changes_nothing():
    logits, targets = drawn()
    torch.testing.assert_close(mmc_loss(logits + 30, targets), mmc_loss(logits, targets))


def test_gradient_is_the_softmax_over_the_batch_minus_the_share_of_present_labels():
    logits, targets = drawn()
    logits.requires_grad_()
    mmc_loss(logits, targets).backward()
    exp = np.exp(logits.detach().double().numpy())
    np.testing.assert_allclose(logits.grad.numpy(), exp / exp.sum() - targets.numpy() / targets.sum().item(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype):
    logits, targets = drawn()
    half = logits.to(dtype)
    loss = mmc_loss(half, targets)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), expected(half.float(), targets), rtol=1e-5)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [0.0, 5e3]], requires_grad=True)
    loss = mmc_loss(logits, torch.tensor([[0, 1], [1, 0]]))
    loss.backward()
    assert loss.item() == 15_000
    assert torch.isfinite(logits.grad).all()


def expected_per_image(logits, targets):
    """Eq. (21), one image at a time; images without a present label do not count."""
    means = []
    for p, y in zip(logits.double().numpy(), targets.numpy(), strict=True):
        if y.any():
            means.append(-np.mean([np.log(np.exp(p[j]) / np.exp(p).sum()) for j in np.flatnonzero(y)]))
    return np.mean(means)


def test_without_the_batch_labels_compete_within_their_image_only():
    logits, targets = drawn()
    np.testing.assert_allclose(mmc_image_loss(logits, targets).item(), expected_per_image(logits, targets), rtol=1e-5)
    shifted = logits + torch.tensor([[0.0], [9.0], [-4.0], [2.0]])
    torch.testing.assert_close(mmc_image_loss(shifted, targets), mmc_image_loss(logits, targets))


def test_without_the_batch_images_without_labels_do_not_count():
    logits, targets = drawn()
    targets[1] = 0
    np.testing.assert_allclose(mmc_image_loss(logits, targets).item(), expected_per_image(logits, targets), rtol=1e-5)
    assert mmc_image_loss(logits, torch.zeros(4, 7)).item() == 0


def test_of_one_image_both_losses_are_the_same():
    logits, targets = drawn(rows=1)
    torch.testing.assert_close(mmc_image_loss(logits, targets), mmc_loss(logits, targets))


def thinned(rows=4, columns=7):
    """As `drawn`, with half of the targets not known."""
    logits, targets = drawn(rows, columns)
    unknown = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    return logits, targets.masked_fill(unknown, -1)


def test_labels_that_are_not_known_are_no_part_of_the_denominator():
    logits, targets = thinned()
    p, known = logits.double().numpy(), targets.numpy() >= 0
    total = np.exp(p[known]).sum()
    by_hand = -np.mean(
        [np.log(np.exp(p[b, j]) / total) for b, j in zip(*np.nonzero(targets.numpy() == 1), strict=True)]
    )
    assert mmc_loss(logits, targets).item() == pytest.approx(by_hand, rel=1e-5)


def test_without_the_batch_labels_that_are_not_known_are_no_part_of_their_image():
    logits, targets = thinned()
    known = [(p[y >= 0], y[y >= 0]) for p, y in zip(logits, targets, strict=True)]
    alone = [mmc_image_loss(p[None], y[None]) for p, y in known if (y == 1).any()]
    torch.testing.assert_close(mmc_image_loss(logits, targets), torch.stack(alone).mean())


@pytest.mark.parametrize("loss", [mmc_loss, mmc_image_loss])
def test_no_gradient_reaches_labels_that_are_not_known(loss):
    logits, targets = thinned()
    targets[2] = -1
    logits.requires_grad_()
    loss(logits, targets).backward()
    assert (logits.grad[targets < 0] == 0).all()
    assert (logits.grad[targets == 1] < 0).all()
    assert (logits.grad[targets == 0] >= 0).all()


@pytest.mark.parametrize("loss", [mmc_loss, mmc_image_loss])
def test_of_nothing_known_the_loss_is_zero(loss):
    logits = drawn()[0].requires_grad_()
    value = loss(logits, torch.full((4, 7), -1))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 7))


def test_of_known_positives_alone_all_that_is_left_to_learn_is_that_they_are_equal():
    logits, targets = drawn()
    targets[targets == 0] = -1
    equal = torch.where(targets == 1, 3.0, logits).requires_grad_()
    mmc_loss(equal, targets).backward()
    torch.testing.assert_close(equal.grad, torch.zeros(4, 7))
