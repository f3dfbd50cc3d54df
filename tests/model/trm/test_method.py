"""TRM-ML as a method: what a step does and in which order, both stages, several processes, whole trainings."""

import csv
import json
import math

import pytest
import torch
import torch.nn.functional as F

import parallel
from configs import load_config
from engine.checkpoint import CheckpointError, load_checkpoint
from engine.ema import Ema
from engine.optim import optimizers
from engine.run import newest_run
from engine.state import load_state
from engine.train import Trainer
from model import ModelError, build_method, load_towers
from model.trm.matching import matching
from model.trm.regions import region_features, sine_positions
from tagging import Tagger
from tests.processes import launched, share_of
from trainings import differing, only_run

CPU = torch.device("cpu")
LABELS = ("cat", "traffic light", "dog", "kite")
SMALL = [
    "MODEL.METHOD", "trm-ml", "MODEL.TRM.HIDDEN", "32", "MODEL.TRM.QUEUE", "4", "MODEL.TRM.TOP_K", "2",
    "MODEL.TRM.DROPOUT", "0", "MODEL.TRM.PSEUDO_START", "1", "SOLVER.GAMMA_POS", "1", "SOLVER.CLIP", "0.05",
]  # fmt: skip
DYNAMIC = {"names", *(f"prototypes.{name}" for name in (
    "texts", "texts_fixed", "bank.vectors", "bank.entered", "thresholds.visual.values", "thresholds.visual.defined",
    "thresholds.text.values", "thresholds.text.defined"))}  # fmt: skip


def build(towers, *overrides, labels=LABELS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = load_config("configs/tiny.yml", [*SMALL, *overrides])
        return build_method(cfg, towers, seen=len(labels), labels=labels).eval()


def images(count=6, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def targets(count=6, seed=0, known=0.6):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, (count, len(LABELS)), generator=generator).float()
    return drawn.masked_fill(torch.rand(drawn.shape, generator=generator) > known, -1)


def step(method, seed=0, size=6):
    """The output of a training step, and its losses."""
    output = method.train()(images(size, seed), method.encode_labels(LABELS), targets(size, seed))
    return output, method.losses(output, targets(size, seed))


def state(method):
    return {name: value.clone() for name, value in method.trained_state().items()}


def test_scores_are_what_regions_of_a_label_say_of_its_texts(towers):
    method = build(towers)
    labels, (_, features) = method.encode_labels(LABELS), method.trunk.dense_features(images())
    asked = method.decoder(features, sine_positions(4, 4, 32), torch.arange(4))
    expected = matching(region_features(asked.energies, features), labels.positive, labels.negative, method.log_scale)
    found = method(images(), labels)
    torch.testing.assert_close(found.scores, expected)
    assert found.learned is None


def test_labels_are_scored_the_same_in_any_order_whichever_others_are_asked_for(towers):
    method = build(towers)
    whole = method(images(), method.encode_labels(LABELS)).scores
    few = method(images(), method.encode_labels(("kite", "cat"))).scores
    torch.testing.assert_close(few, whole[:, [3, 0]], rtol=1e-4, atol=1e-5)


def test_images_need_not_be_square(towers):
    method = build(towers)
    assert method(images()[..., :16, :], method.encode_labels(LABELS)).scores.isfinite().all()


def test_a_label_that_was_not_known_in_training_is_a_clear_error(towers):
    with pytest.raises(ModelError, match="TRM-ML knows 4 labels, fixed in training, and 'sun' is not one"):
        build(towers).encode_labels(("cat", "sun"))


def test_training_takes_all_labels_together(towers):
    with pytest.raises(ModelError, match="TRM-ML trains all of its 4 labels together, not 2"):
        build(towers).train().encode_labels(LABELS[:2])


def test_what_is_trained_and_what_is_remembered_are_kept_and_averaged_or_not(towers):
    method = build(towers)
    (group,) = method.groups()
    names = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert len(group.parameters) == len(names)
    assert set(method.trained_state()) == names | DYNAMIC
    assert method.not_averaged == DYNAMIC - {"names"}
    average = Ema(method.trained_state(), decay=0.5, copied=method.not_averaged)
    step(method)
    average.update()
    for name in method.not_averaged:
        assert torch.equal(average.state_dict()[name], method.trained_state()[name])


def test_a_step_without_pseudo_labels_has_the_losses_of_known_labels(towers):
    method = build(towers)
    output, losses = step(method)
    assert torch.equal(output.learned.targets, targets())
    labels, (_, features) = method.encode_labels(LABELS), method.trunk.dense_features(images())
    asked = method.decoder(features, sine_positions(4, 4, 32), torch.arange(4))
    query_logits = matching(
        method.decoder.features(asked, features), labels.positive, labels.negative, method.log_scale
    )
    for name, logits in (("queries", query_logits), ("regions", output.scores)):
        p, y = logits.double().sigmoid(), targets()
        shifted = (p - 0.05).clamp(min=0)
        terms = torch.where(y == 1, (1 - p) * p.clamp(min=1e-8).log(), shifted**2 * (1 - shifted).log()) * (y >= 0)
        assert losses[name].item() == pytest.approx(-terms.sum().item() / 6, rel=1e-4)
    total = sum(losses.values())
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.groups()[0].parameters)


def test_labels_are_judged_by_the_thresholds_and_the_bank_in_front_of_the_step(towers):
    method = build(towers)
    for epoch in (1, 2, 2, 2, 2, 2):
        method.train().begin_epoch(epoch)
        step(method, seed=epoch)
    output = method(images(40, 9), method.encode_labels(LABELS))
    regions = region_features(output.energies, method.trunk.dense_features(images(40, 9))[1])
    prototypes = method.prototypes
    means = {"visual": F.normalize(prototypes.bank.vectors, dim=-1).mean(1), "text": prototypes.texts}
    expected = torch.full((40, 4), -1)
    for image in range(40):
        for label in range(4):
            said = set()
            for kind, directions in means.items():
                s = F.normalize(regions[image, label], dim=0) @ directions[label]
                absent, present = prototypes.thresholds[kind].values[:, label]
                in_order = prototypes.thresholds[kind].defined[:, label].all() and present > absent
                said.add(-1 if not in_order else 1 if s >= present else 0 if s <= absent else -1)
            if len(said) == 1:
                expected[image, label] = said.pop()
    assert set(expected.flatten().tolist()) == {1, 0, -1}  # else the test says nothing
    output, _ = step(method, seed=9, size=40)
    known = targets(40, 9)
    assert torch.equal(output.learned.pseudo, expected)
    assert torch.equal(output.learned.targets, torch.where(known < 0, expected, known))


def test_the_contrast_is_with_regions_of_known_labels_and_with_the_bank_in_front_of_the_step(towers):
    method = build(towers)
    for seed in range(4):
        step(method, seed=seed)
    held = method.prototypes.bank.held()
    output, _ = step(method, seed=9)
    image, label = (targets(seed=9) == 1).nonzero(as_tuple=True)
    regions = region_features(output.energies, method.trunk.dense_features(images(seed=9))[1])[image, label]
    assert len(held.labels) > 0
    assert output.learned.candidates.labels.tolist() == label.tolist() + held.labels.tolist()
    torch.testing.assert_close(
        output.learned.candidates.vectors, torch.cat([F.normalize(regions, dim=-1), held.vectors])
    )
    assert not torch.equal(method.prototypes.bank.held().vectors, held.vectors)


def test_only_training_remembers(towers):
    method = build(towers)
    before = state(method)
    method(images(), method.encode_labels(LABELS), targets())
    assert all(torch.equal(value, before[name]) for name, value in method.trained_state().items())
    step(method)
    assert {name for name, value in method.trained_state().items() if not torch.equal(value, before[name])} == {
        "prototypes.bank.vectors", "prototypes.bank.entered", "prototypes.thresholds.text.values",
        "prototypes.thresholds.text.defined",
    }  # fmt: skip


@pytest.mark.parametrize(("unknown", "assumed"), [("ignored", 0), ("absent", 1), ("always-absent", 1)])
def test_single_positive_labels_take_what_is_not_named_for_absent(towers, unknown, assumed):
    method = build(towers, "MODEL.TRM.UNKNOWN", unknown).train()
    single = torch.full((6, 4), -1.0)
    single[torch.arange(6), torch.arange(6) % 4] = 1
    output = method(images(), method.encode_labels(LABELS), single)
    assert method.prototypes.thresholds["text"].defined[1].all()
    assert method.prototypes.thresholds["text"].defined[0].all() == bool(assumed)
    assert torch.equal(output.learned.targets, single.clamp(min=0) if assumed else single)


def test_texts_stand_still_from_the_first_epoch_with_pseudo_labels_on(towers):
    method = build(towers, "MODEL.TRM.PSEUDO_START", "2").train()
    for epoch in (1, 2):
        method.begin_epoch(epoch)
        assert not method.judges
        assert not method.prototypes.texts_fixed
    method.begin_epoch(3)
    expected = F.normalize(method.encode_labels(LABELS).positive, dim=-1)
    assert method.judges
    torch.testing.assert_close(method.prototypes.texts, expected)
    with torch.no_grad():
        method.positive.vectors.add_(1)
    for epoch in (3, 4):  # where a run goes on, and later
        method.begin_epoch(epoch)
        torch.testing.assert_close(method.prototypes.texts, expected)


def test_without_pseudo_labels_the_first_stage_has_no_end(towers):
    method = build(towers, "MODEL.TRM.PSEUDO_LABELS", "none").train()
    method.begin_epoch(99)
    assert not method.judges
    assert not method.prototypes.texts_fixed


def first_stage(towers):
    method = build(towers, "MODEL.TRM.PSEUDO_LABELS", "none")
    with torch.no_grad():
        for parameter in method.groups()[0].parameters:
            parameter += 0.1
    step(method)
    return method


@pytest.mark.parametrize("continued", [False, True])
def test_a_second_stage_takes_the_texts_of_the_first_or_all_of_it(towers, continued):
    first, second = first_stage(towers), build(towers, "MODEL.TRM.CONTINUED", str(continued))
    texts = F.normalize(first.eval().encode_labels(LABELS).positive, dim=-1)
    expected = state(first if continued else second)
    second.begin_with(first.trained_state())
    taken = ("prototypes.texts", "prototypes.texts_fixed")
    torch.testing.assert_close(second.prototypes.texts, texts)
    assert second.prototypes.texts_fixed
    rest = {name: value for name, value in second.trained_state().items() if name not in taken}
    assert all(torch.equal(value, expected[name]) for name, value in rest.items())


def test_texts_of_a_first_stage_stay_what_they_are(towers):
    method = build(towers)
    method.begin_with(first_stage(towers).trained_state())
    before = method.prototypes.texts.clone()
    for epoch in range(1, 4):
        method.train().begin_epoch(epoch)
        step(method)
    assert torch.equal(method.prototypes.texts, before)


def test_a_first_stage_of_other_labels_is_refused(towers):
    method = build(towers)
    before = state(method)
    with pytest.raises(ModelError, match="for other labels: 'kite' is on one side only"):
        method.begin_with(build(towers, labels=("cat", "traffic light", "dog", "sun")).trained_state())
    assert all(torch.equal(value, before[name]) for name, value in method.trained_state().items())


def test_the_log_has_shares_of_unknown_labels_queues_and_thresholds(towers):
    method = build(towers)
    output, _ = step(method)
    unknown = torch.tensor([[True, True, False, True]])
    pseudo = torch.tensor([[1, 0, 1, -1]])
    method.prototypes.bank.entered.copy_(torch.tensor([4, 5, 1, 0]))
    found = method.diagnostics(output._replace(learned=output.learned._replace(unknown=unknown, pseudo=pseudo)))
    assert found["pseudo_present"].item() == pytest.approx(1 / 3)
    assert found["pseudo_absent"].item() == pytest.approx(1 / 3)
    assert found["full_queues"] == 0.5
    assert 0 <= found["ordered_thresholds"] <= 1
    nothing = output.learned._replace(unknown=torch.zeros_like(unknown), pseudo=pseudo)
    assert method.diagnostics(output._replace(learned=nothing))["pseudo_present"] == 0


class Batch:
    """Images of a step with some labels unknown, or the share of a process."""

    def __init__(self, pixels, wanted):
        self.images, self.targets, self.known = pixels, wanted.clamp(min=0), wanted >= 0
        self.paths = [""] * len(pixels)

    def share(self, rank, count):
        wanted = self.targets.masked_fill(~self.known, -1)
        return Batch(share_of(self.images, rank, count), share_of(wanted, rank, count))


def trainer_of(method, lines, **how):
    return Trainer(**{
        "model": method, "names": LABELS, "optimizers": optimizers(method.groups()), "rates_per_step": False,
        "ema": None, "set_rates": lambda _: None, "scaler": torch.amp.GradScaler("cpu", enabled=False), "device": CPU,
        "autocast": None, "log": lambda **values: lines.append(values), "log_period": 1, "skip_nonfinite": False,
        "progress_bar": False,
    } | how)  # fmt: skip


def steps(batches, rank=0, count=1):
    """The log of two epochs, the last gradients, and what is remembered then."""
    cfg = load_config("configs/tiny.yml", [*SMALL, "SOLVER.BASE_LR", "0"])  # else what is rounding alone moves
    torch.manual_seed(0)
    method, lines = build_method(cfg, load_towers(cfg), seen=4, labels=LABELS), []
    trainer = trainer_of(method, lines)
    for epoch in (1, 2):
        trainer.epoch(epoch, [batch.share(rank, count) for batch in batches])
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return lines, gradients, state(method)


def test_two_processes_remember_judge_and_learn_as_one_does():
    batches = [Batch(images(8, seed), targets(8, seed)) for seed in range(5)]
    lines, gradients, remembered = steps(batches)

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            return steps(batches, rank, 2)

    (their_lines, *first), (_, *second) = launched(2, work)
    assert any(line["pseudo_present"] > 0 for line in lines)  # else the test says nothing
    assert any(line["pseudo_absent"] > 0 for line in lines)
    for ours, theirs in zip(lines, their_lines, strict=True):
        for name in ("loss", "loss_queries", "loss_regions", "loss_distillation", "loss_contrast", "full_queues"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4)
    largest = max(grad.abs().max().item() for grad in gradients.values())
    for their_gradients, their_state in (first, second):
        for name, grad in gradients.items():
            torch.testing.assert_close(their_gradients[name], grad, rtol=1e-4, atol=1e-6 * largest)
        for name, value in remembered.items():
            torch.testing.assert_close(their_state[name], value, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())


def test_a_step_without_a_finite_loss_is_forgotten(towers):
    method, lines = build(towers), []
    trainer = trainer_of(method, lines, skip_nonfinite=True)
    trainer.epoch(1, [Batch(images(seed=1), targets(seed=1))])
    before = state(method)
    broken = Batch(images(seed=2).fill_(math.nan), targets(seed=2))
    with pytest.warns(UserWarning, match="left out"):
        trainer.epoch(2, [broken], first_batch=1)
    after = method.trained_state()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved <= {"prototypes.texts", "prototypes.texts_fixed"}  # of the second stage, which has begun


@pytest.fixture
def partly_known(benchmark):
    """A benchmark of four labels of which not all are known in training: six images, three steps an epoch."""
    rows = list(csv.reader(["image,cat,cup,dog,tree"]))
    for k in range(6):
        rows.append(
            [f"images/train{k}.{('png', 'jpg')[k % 2]}", *[(1, 0, -1)[(k + 2 * c + k * c) % 3] for c in range(4)]]
        )
    tested = [rows[0], *([row[0], *(max(int(v), 0) for v in row[1:])] for row in rows[1:])]
    for name, lines in (("train", rows), ("test", tested)):
        with open(benchmark.data / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(lines)

    def config(*more):
        return benchmark.config(*SMALL, "DATASETS.TRAIN", "train.csv", "DATASETS.VAL", "", "DATASETS.TEST", "test.csv",
                                "SOLVER.MAX_EPOCHS", "2", "SOLVER.EVAL_PERIOD", "2", "MODEL.TRM.DROPOUT", "0.1",
                                "MODEL.TRM.QUEUE", "2", "DATASETS.CHOOSE", "none", *more)  # fmt: skip

    return config


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.usefixtures("own_random_state")
def test_a_run_killed_in_both_stages_goes_on_to_the_bit_with_its_bank_thresholds_and_texts(
    partly_known, benchmark, train_script, monkeypatch, tmp_path
):
    often = ("SOLVER.CHECKPOINT_PERIOD", "1")
    train_script.train(partly_known(*often, "OUTPUT_DIR", str(tmp_path / "through")), None)
    (through,) = (tmp_path / "through").iterdir()
    save, calls = train_script.Run.save, []

    def counted(run, path):
        save(run, path)
        calls.append((run.epoch, run.batch))
        if len(calls) in (2, 5):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train_script.Run, "save", counted)
        for _ in range(2):
            with pytest.raises(Killed):
                train_script.train(partly_known(*often), "auto")
    assert (calls[1], calls[4]) == ((1, 2), (2, 1))
    train_script.train(partly_known(*often), "auto")
    assert differing(only_run(benchmark), through) == []
    model = load_state(through / "checkpoint.pth").model
    assert model["prototypes.texts_fixed"]
    assert model["prototypes.bank.entered"].sum() > 0
    assert model["prototypes.thresholds.visual.defined"].any()


def results_of(run):
    return json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]


@pytest.mark.usefixtures("own_random_state")
def test_both_stages_are_trained_tested_and_predict(partly_known, benchmark, train_script, test_script, tmp_path):
    first_stage = ("MODEL.TRM.PSEUDO_LABELS", "none", "SOLVER.MAX_EPOCHS", "1")
    stage_1 = partly_known(*first_stage, "OUTPUT_DIR", str(tmp_path / "first"))
    train_script.train(stage_1, None)
    (first,) = (tmp_path / "first").iterdir()
    stage_2 = partly_known("SOLVER.INIT", str(first))
    train_script.train(stage_2, None)
    run = only_run(benchmark)
    content = load_checkpoint(run / "checkpoint.pth")
    assert content["seen"] == ["cat", "cup", "dog", "tree"]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    trained = next(line for line in lines if line["kind"] == "train")
    assert {"loss_queries", "loss_regions", "loss_distillation", "loss_contrast", "pseudo_present", "pseudo_absent",
            "full_queues", "ordered_thresholds"} <= trained.keys()  # fmt: skip
    test_script.test(partly_known())
    assert list(results_of(run)) == ["zero-shot CLIP", "TRM-ML", "TRM-ML (EMA)"]
    picture = str(benchmark.data / "images" / "train0.png")
    tags = Tagger.load(run).tag(picture, score="paper")
    assert set(tags.labels) == {"cat", "cup", "dog", "tree"}


@pytest.mark.usefixtures("own_random_state")
def test_a_first_stage_of_another_method_is_refused(partly_known, finished, benchmark, train_script):
    with pytest.raises(CheckpointError, match=r"SOLVER\.INIT .*checkpoint\.pth is of another model: "):
        train_script.train(partly_known("SOLVER.INIT", str(finished.run)), None)
    assert not benchmark.runs.exists()
