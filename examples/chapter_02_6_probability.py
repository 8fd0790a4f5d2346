"""Section 2.6: probability: a fair die by sampling, and Bayes' theorem by hand and by counting."""

import torch
from torch.distributions import Multinomial

from d2lkernels.d2l.example import run_script

PRIOR = 0.0015
TESTS = ((1.0, 0.01), (0.98, 0.03))  # positive if ill, positive if well, for two tests


def posterior(prior, positive_if_ill, positive_if_well):
    """P(ill | positive)."""
    positive = positive_if_ill * prior + positive_if_well * (1 - prior)
    return positive_if_ill * prior / positive


def main(example):
    fair = torch.ones(6) / 6
    print("ten rolls:", Multinomial(10, fair).sample().tolist())
    counts = Multinomial(10, fair).sample((example.choose(500, 50),)).cumsum(dim=0)
    estimates = counts / counts.sum(dim=1, keepdim=True)
    groups = range(len(estimates))
    legend = [f"P(die = {face + 1})" for face in range(6)]
    example.plot(
        "die",
        list(groups),
        list(estimates.T),
        "groups of ten rolls",
        "estimated probability",
        legend=legend,
        fmts=("-", "--", "-.", ":", "-", "--"),
    )

    after_one = posterior(PRIOR, *TESTS[0])
    after_two = posterior(after_one, *TESTS[1])
    print(f"ill after one positive test: {after_one:.4f}, after two: {after_two:.4f}")

    # The same by counting people.
    people = example.choose(4_000_000, 100_000)
    ill = torch.rand(people) < PRIOR
    positive = torch.ones(people, dtype=torch.bool)
    counted = []
    for if_ill, if_well in TESTS:
        positive &= torch.rand(people) < torch.where(ill, if_ill, if_well)
        counted.append((ill & positive).sum() / positive.sum())
    return {
        "die_largest_error": (estimates[-1] - fair).abs().max(),
        "ill_after_one_test": after_one,
        "ill_after_two_tests": after_two,
        "counted": counted,
    }


if __name__ == "__main__":
    run_script(main)
