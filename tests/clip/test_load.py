import copy
import http.server
import logging
import re
import threading
import warnings

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clip import load
from clip.load import IMAGENET_TEMPLATES, Sizes, TextError, WeightsError, load_clip, sizes

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
RESNET = {
    **TINY, "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 2, "patch_size": None}
}  # fmt: skip
CLOSED = "http://127.0.0.1:9"  # the discard port: refuses at once


def config(**changes):
    """TINY with `vision_cfg__key=value`, `text_cfg__key=value` or `key=value` changed."""
    made = copy.deepcopy(TINY)
    for key, value in changes.items():
        *section, name = key.split("__")
        (made[section[0]] if section else made)[name] = value
    return made


@pytest.fixture(autouse=True)
def architectures(monkeypatch):
    """Registers tiny architectures for one test; open_clip keeps them in this dictionary."""
    known = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(known, "ViT-test-8", TINY)
    monkeypatch.setitem(known, "ViT-test-8-quickgelu", config(quick_gelu=True))
    monkeypatch.setitem(known, "ViT-test-8-64", config(vision_cfg__image_size=64))
    monkeypatch.setitem(known, "ViT-test-16", config(vision_cfg__patch_size=16))
    monkeypatch.setitem(known, "RN-test", RESNET)
    return known


def reference(quick_gelu=False, **changes):
    """open_clip's own model with values that half precision holds, as OpenAI's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.CLIP(**{**config(**changes), "quick_gelu": quick_gelu})
        for parameter in model.parameters():
            parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).half().float()
    return model.eval()


def script_to(path, model):
    """OpenAI's format: a TorchScript archive in half precision with three extra buffers."""
    archive = copy.deepcopy(model)
    open_clip.convert_weights_to_fp16(archive)
    bare = bare_tree(archive)
    for name in ("input_resolution", "context_length", "vocab_size"):
        bare.register_buffer(name, torch.tensor(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(bare).save(str(path))


def bare_tree(module):
    """The same parameters under the same names, without the code."""
    bare = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        bare.register_parameter(name, parameter)
    for name, child in module.named_children():
        bare.add_module(name, bare_tree(child))
    return bare


def openai_state(model):
    archive = copy.deepcopy(model)
    open_clip.convert_weights_to_fp16(archive)
    extra = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(1))
    return {**archive.state_dict(), **extra}


def custom_text_state(model):
    towers = ("visual.", "logit_scale")
    return {name if name.startswith(towers) else f"text.{name}": t for name, t in model.state_dict().items()}


WRITERS = {
    "archive.pt": script_to,
    "openai.pt": lambda path, model: torch.save(openai_state(model), path),
    "open_clip.pt": lambda path, model: torch.save(model.state_dict(), path),
    "half.pt": lambda path, model: torch.save(copy.deepcopy(model).half().state_dict(), path),
    "custom_text.bin": lambda path, model: torch.save(custom_text_state(model), path),
    "training.pt": lambda path, model: torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": t for name, t in model.state_dict().items()}}, path
    ),
    "tensors.safetensors": lambda path, model: save_file(model.state_dict(), path),
}
OPENAI = {"archive.pt", "openai.pt"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The reference in every format."""
    folder = tmp_path_factory.mktemp("weights")
    for name, write in WRITERS.items():
        write(folder / name, reference())
    return folder


@pytest.fixture
def plain(files):
    return str(files / "open_clip.pt")


def images(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


TEXTS = ["a red circle", "a photo of two striped stars."]


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_features_are_those_of_open_clips_own_model(files, name):
    oracle = reference(quick_gelu=name in OPENAI)
    towers = load_clip("ViT-test-8", str(files / name))
    tokens = open_clip.tokenize(TEXTS)
    assert torch.allclose(towers.visual(images()), oracle.encode_image(images()), atol=1e-5)
    assert torch.allclose(towers.text(tokens), oracle.encode_text(tokens), atol=1e-5)
    assert towers.logit_scale == pytest.approx(float(oracle.logit_scale.exp()))


def test_the_two_activations_give_other_features():
    with torch.no_grad():
        assert not torch.allclose(reference(False).encode_image(images()), reference(True).encode_image(images()))


def resnet_reference(quick_gelu=False):
    """open_clip's own model with a ResNet, with statistics of BatchNorm that are not those of the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.CLIP(**RESNET, quick_gelu=quick_gelu)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value += 0.05 * (torch.rand_like(value) if name.endswith("running_var") else torch.randn_like(value))
                value.copy_(value.half())
            elif name.endswith("num_batches_tracked"):
                value += 7
    return model.eval()


def traced_to(path, model):
    """OpenAI's format as OpenAI made it: the whole model, traced in half precision, with three extra buffers."""
    archive = copy.deepcopy(model)
    open_clip.convert_weights_to_fp16(archive)
    for name in ("input_resolution", "context_length", "vocab_size"):
        vars(archive).pop(name, None)
        archive.register_buffer(name, torch.tensor(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer
        tokens = torch.ones(1, 77, dtype=torch.long)
        torch.jit.trace(archive, (torch.zeros(1, 3, 64, 64).half(), tokens), check_trace=False).save(str(path))


def without_counts(path, model):
    torch.save({n: t for n, t in openai_state(model).items() if not n.endswith("num_batches_tracked")}, path)


RESNET_WRITERS = {
    "archive.pt": traced_to, "openai.pt": WRITERS["openai.pt"], "no_counts.pt": without_counts,
    "open_clip.pt": WRITERS["open_clip.pt"], "tensors.safetensors": WRITERS["tensors.safetensors"],
}  # fmt: skip


@pytest.fixture(scope="module")
def resnet_files(tmp_path_factory):
    """A CLIP with a ResNet in several formats."""
    folder = tmp_path_factory.mktemp("resnet")
    for name, write in RESNET_WRITERS.items():
        write(folder / name, resnet_reference())
    return folder


@pytest.mark.parametrize("name", RESNET_WRITERS)
@torch.no_grad()
def test_features_of_a_resnet_are_those_of_open_clips_own_model(resnet_files, name):
    oracle = resnet_reference(quick_gelu=name in OPENAI | {"no_counts.pt"})
    towers, tokens = load_clip("RN-test", str(resnet_files / name)), open_clip.tokenize(TEXTS)
    assert torch.allclose(towers.visual(images(64, 64)), oracle.encode_image(images(64, 64)), atol=1e-5)
    assert torch.allclose(towers.text(tokens), oracle.encode_text(tokens), atol=1e-5)


def test_statistics_of_batch_norm_matter_to_this_test(resnet_files):
    towers = load_clip("RN-test", str(resnet_files / "open_clip.pt"))
    with torch.no_grad():
        before = towers.visual(images(64, 64))
        towers.visual.layer4[0].bn3.reset_running_stats()
        assert not torch.allclose(towers.visual(images(64, 64)), before, atol=1e-3)


def test_every_format_of_a_resnet_has_the_same_identity_but_for_the_activation(resnet_files):
    found = {name: load_clip("RN-test", str(resnet_files / name)).identity for name in RESNET_WRITERS}
    assert len({identity.rpartition(":")[2] for identity in found.values()}) == 1
    assert found["open_clip.pt"].startswith("RN-test/")
    assert found["archive.pt"].startswith("RN-test-quickgelu/")


def test_an_identity_changes_with_a_statistic_of_batch_norm(resnet_files, tmp_path):
    state = resnet_reference().state_dict()
    first = load_clip("RN-test", str(resnet_files / "open_clip.pt")).identity
    state["visual.layer2.0.bn1.running_var"] += 0.5
    torch.save(state, tmp_path / "other.pt")
    assert load_clip("RN-test", str(tmp_path / "other.pt")).identity != first


def test_a_resnet_is_frozen_in_eval_mode_with_its_statistics(resnet_files):
    towers = load_clip("RN-test", str(resnet_files / "archive.pt"))
    before = copy.deepcopy(towers.visual.state_dict())
    towers.visual(images(64, 64))
    assert not any(module.training for module in towers.visual.modules())
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in towers.visual.parameters())
    assert all(torch.equal(value, before[name]) for name, value in towers.visual.state_dict().items())


def test_weights_of_the_other_kind_of_tower_are_refused(resnet_files, plain):
    with pytest.raises(WeightsError, match="does not fit ViT-test-8: visual.class_embedding is missing; set MODEL"):
        load_clip("ViT-test-8", str(resnet_files / "openai.pt"))
    with pytest.raises(WeightsError, match="does not fit RN-test: visual.conv1.weight is .* instead of"):
        load_clip("RN-test", plain)


@pytest.mark.parametrize("name", ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"])
def test_openais_resnets_are_known_by_name_and_file(name):
    assert load._architecture(name)[0] == name
    assert f"{name}.pt" in load.PUBLISHED


def test_every_format_of_the_same_weights_has_the_same_identity(files):
    found = {load_clip("ViT-test-8-quickgelu", str(files / n)).identity for n in WRITERS}
    assert len(found) == 1


def test_an_identity_names_architecture_activation_and_sha(files, plain):
    gelu = load_clip("ViT-test-8", plain).identity
    quick = load_clip("ViT-test-8", str(files / "archive.pt")).identity
    assert re.fullmatch(r"ViT-test-8/sha256:[0-9a-f]{64}", gelu)
    assert quick == gelu.replace("/", "-quickgelu/")


def test_an_identity_changes_with_any_weight(tmp_path, plain):
    state = reference().state_dict()
    state["logit_scale"] = state["logit_scale"] + 0.5
    torch.save(state, tmp_path / "other.pt")
    first = load_clip("ViT-test-8", plain).identity
    assert load_clip("ViT-test-8", str(tmp_path / "other.pt")).identity != first


@pytest.mark.parametrize("weights", ["random", "plain"])
def test_the_towers_are_frozen_float32_and_in_eval_mode(plain, weights):
    towers = load_clip("ViT-test-8", plain if weights == "plain" else weights)
    for tower in (towers.visual, towers.text):
        assert not any(module.training for module in tower.modules())
        assert all(not p.requires_grad and p.dtype == torch.float32 for p in tower.parameters())


def test_the_towers_share_no_parameter_and_have_them_all_but_the_scale():
    towers = load_clip("ViT-test-8", "random")
    visual, text = ({id(p) for p in tower.parameters()} for tower in (towers.visual, towers.text))
    assert not visual & text
    assert len(visual) + len(text) == len(list(reference().parameters())) - 1


def activation(towers):
    kinds = {type(b.mlp.gelu) for tower in (towers.visual, towers.text) for b in tower.transformer.resblocks}
    assert len(kinds) == 1
    return kinds.pop()


@pytest.mark.parametrize("name", WRITERS)
def test_quickgelu_is_used_for_openais_weights_whatever_the_name(files, name):
    towers = load_clip("ViT-test-8", str(files / name))
    assert activation(towers) == (open_clip.model.QuickGELU if name in OPENAI else nn.GELU)


@pytest.mark.parametrize("weights", ["random", "plain"])
def test_quickgelu_is_used_where_the_name_says_so(plain, weights):
    weights = plain if weights == "plain" else weights
    assert activation(load_clip("ViT-test-8-quickgelu", weights)) is open_clip.model.QuickGELU


@pytest.mark.parametrize("weights", ["random", "plain"])
def test_quickgelu_is_used_where_the_name_is_openais(plain, weights):
    weights = plain if weights == "plain" else weights
    assert activation(load_clip("ViT-test/8", weights)) is open_clip.model.QuickGELU
    assert activation(load_clip("ViT-test-8", weights)) is torch.nn.GELU


def test_random_weights_follow_the_seed():
    first, again, other = (load_clip("ViT-test-8", "random", seed=s).identity for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_the_seed_of_random_weights_is_0_by_default():
    first = load_clip("ViT-test-8", "random")
    assert first.identity == load_clip("ViT-test-8", "random", seed=0).identity


@pytest.mark.parametrize("weights", ["random", "plain"])
def test_global_random_state_is_left_alone(plain, weights):
    before = torch.get_rng_state()
    load_clip("ViT-test-8", plain if weights == "plain" else weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_logged(caplog, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: pytest.fail("the root logger was set up"))
    with caplog.at_level(logging.DEBUG):
        load_clip("ViT-test-8", "random")
    assert not caplog.records


@pytest.mark.parametrize("name", ["ViT-tiny-8", "ViT-S-8-shapes", "RN-tiny"])
def test_the_architectures_of_this_folder_are_registered(name):
    assert name in open_clip.list_models()
    assert load._architecture(name)[0] == name


@pytest.mark.slow
@torch.no_grad()
def test_openais_spelling_of_the_default_backbone_gives_a_full_vit_b_16():
    towers = load_clip("ViT-B/16", "random")
    assert towers.visual(images(224, 224)).shape == (2, 512)
    assert sum(p.numel() for tower in (towers.visual, towers.text) for p in tower.parameters()) == 149_620_736


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("ViT-test/8", "ViT-test-8"), ("ViT-test/8@64px", "ViT-test-8-64"), ("ViT-B/32", "ViT-B-32"), ("RN50", "RN50")],
)
def test_openais_spelling_is_understood(spelling, name):
    assert load._architecture(spelling)[0] == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ViT-test-8", (2, 2, 8)), ("ViT-B/16", (12, 12, 16)), ("ViT-L/14@336px", (24, 12, 14)), ("RN101", (0, 12, 32))],
)
def test_sizes_are_known_without_weights(name, expected):
    assert sizes(name) == Sizes(*expected)


def test_the_sizes_of_another_model_are_refused():
    with pytest.raises(WeightsError, match="is not a plain CLIP ViT or ResNet: its image tower is one of timm"):
        sizes("EVA02-B-16")


@pytest.mark.parametrize(("backbone", "near"), [("ViT-B/17", "ViT-B-16"), ("vit-b-16", "ViT-B-16"), ("?", "none")])
def test_an_unknown_backbone_is_refused_with_near_names(backbone, near):
    words = f"MODEL.BACKBONE {re.escape(repr(backbone))} is no architecture .*near names: .*{near}"
    with pytest.raises(WeightsError, match=words):
        load_clip(backbone, "random")


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("EVA02-B-16", "timm"),
        ("ViT-B-16-SigLIP", "init_logit_bias"),
        ("coca_ViT-B-32", "multimodal_cfg"),
        ("roberta-ViT-B-32", "Hugging Face"),
        ("ViT-L-14-CLIPA", "tokenizer"),
    ],
)
def test_other_models_of_open_clip_are_refused(backbone, words):
    with pytest.raises(WeightsError, match=f"{backbone}' is not a plain CLIP ViT or ResNet: .*{words}"):
        load_clip(backbone, "random")


PECULIAR = {
    "an attention pool": ({"vision_cfg__attentional_pool": True}, "class token"),
    "average pooling": ({"vision_cfg__pool_type": "avg"}, "class token"),
    "late normalisation": ({"vision_cfg__final_ln_after_pool": True}, "normalisation"),
    "patch dropout": ({"vision_cfg__patch_dropout": 0.5}, "drops patches"),
    "custom blocks": ({"vision_cfg__block_type": "custom"}, "attention"),
    "normalised queries": ({"text_cfg__qk_norm": True}, "attention"),
    "first-token texts": ({"text_cfg__pool_type": "first"}, "not read at their end"),
    "another end": ({"text_cfg__pool_type": "eos"}, "not read at their end"),
    "no causal mask": ({"text_cfg__no_causal_mask": True}, "not causal"),
    "a class token for texts": ({"text_cfg__embed_cls": True}, "not causal"),
    "a projection with bias": ({"text_cfg__proj_bias": True}, "projection"),
    "no projection": ({"text_cfg__proj_type": "none"}, "projection"),
    "another vocabulary": ({"text_cfg__vocab_size": 32000}, "tokenizer"),
    "another cleaning": ({"text_cfg__tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer"),
}


@pytest.mark.parametrize("case", PECULIAR)
def test_a_vit_is_not_plain_with(architectures, monkeypatch, case):
    changes, words = PECULIAR[case]
    monkeypatch.setitem(architectures, "ViT-odd", config(**changes))
    with pytest.raises(WeightsError, match=f"ViT-odd' is not a plain CLIP ViT or ResNet: .*{words}"):
        load_clip("ViT-odd", "random")


def test_a_text_tower_read_at_clips_own_end_token_is_plain(architectures, monkeypatch):
    monkeypatch.setitem(architectures, "ViT-eos", config(text_cfg__pool_type="eos", text_cfg__eos_id=49407))
    towers = load_clip("ViT-eos", "random")
    tokens = towers.tokenize(TEXTS)
    assert torch.equal((tokens == 49407).int().argmax(1), tokens.argmax(1))


def test_weights_of_another_architecture_are_refused_with_the_first_difference(plain):
    words = (
        r"open_clip.pt does not fit ViT-test-16: visual.positional_embedding is \(17, 32\) instead of \(5, 32\); "
        "set MODEL.BACKBONE"
    )
    with pytest.raises(WeightsError, match=words):
        load_clip("ViT-test-16", plain)


def test_an_archive_under_openais_file_name_has_to_be_openais(tmp_path, files):
    path = tmp_path / "ViT-B-16.pt"
    path.write_bytes((files / "archive.pt").read_bytes())
    words = r"SHA-256 \w{12}... instead of 5806e77cd80f.*download https://openaipublic.azureedge.net/clip/models/5806e"
    with pytest.raises(WeightsError, match=words):
        load_clip("ViT-test-8", str(path))


def test_a_relative_path_starts_at_the_working_directory_or_else_at_the_repository(files, tmp_path, monkeypatch):
    here, repository = tmp_path / "here", tmp_path / "repository"
    here.mkdir()
    repository.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(load, "ROOT", repository)
    state = reference().state_dict()
    torch.save(state, repository / "w.pt")
    in_repository = load_clip("ViT-test-8", "w.pt").identity
    torch.save({**state, "logit_scale": torch.tensor(1.0)}, here / "w.pt")
    assert load_clip("ViT-test-8", "w.pt").logit_scale == pytest.approx(2.71828, rel=1e-5)
    assert in_repository == load_clip("ViT-test-8", str(files / "open_clip.pt")).identity


def test_a_tilde_is_the_home_folder(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    assert load_clip("ViT-test-8", "~/open_clip.pt").logit_scale > 0


@pytest.mark.parametrize("weights", ["weights/ViT-B-16.pt", "laion9000", "", "."])
def test_what_is_neither_file_nor_tag_is_refused_with_tags_url_and_key(weights):
    words = (
        f"CLIP weights {re.escape(repr(weights))} are not there: .*tags: openai, laion400m_e31.*"
        "set MODEL.CLIP_WEIGHTS to a local file, such as a download of https://openaipublic.*/ViT-B-16.pt"
    )
    with pytest.raises(WeightsError, match=words) as caught:
        load_clip("ViT-B/16", weights)
    assert "\n" not in str(caught.value)


def test_a_model_without_tags_says_so():
    with pytest.raises(WeightsError, match=r"nor a tag of ViT-test-8 \(tags: none\); set MODEL.CLIP_WEIGHTS"):
        load_clip("ViT-test-8", "openai")


@pytest.fixture
def offer(monkeypatch, tmp_path):
    """Gives ViT-test-8 a tag "web"; nothing is in a cache, and no network is used."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.setattr(load, "hf_hub_download", not_kept)

    def offer_tag(url="", hub="", **more):
        monkeypatch.setitem(
            open_clip.pretrained._PRETRAINED, "ViT-test-8", {"web": {"url": url, "hf_hub": hub, **more}}
        )

    return offer_tag


def not_kept(**_):
    raise FileNotFoundError


@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_is_downloaded_from_its_url_and_decides_the_activation(offer, files, tmp_path, quick):
    offer(url=(files / "open_clip.pt").as_uri(), quick_gelu=quick)
    towers = load_clip("ViT-test-8", "web")
    assert activation(towers) == (open_clip.model.QuickGELU if quick else nn.GELU)
    assert (tmp_path / "home/.cache/clip/open_clip.pt").read_bytes() == (files / "open_clip.pt").read_bytes()


def test_a_tag_kept_by_the_hubs_cache_needs_no_network(offer, files, monkeypatch):
    offer(url=f"{CLOSED}/x.pt", hub="someone/clip/")
    asked = []

    def kept(repo_id, filename, local_files_only):
        asked.append((repo_id, filename, local_files_only))
        if filename.endswith(".safetensors"):
            raise FileNotFoundError
        return str(files / "open_clip.pt")

    monkeypatch.setattr(load, "hf_hub_download", kept)
    load_clip("ViT-test-8", "web")
    assert asked == [("someone/clip", name, True) for name in load.HUB_FILES]


def test_a_tag_that_names_its_file_on_the_hub_is_looked_up_by_it(offer, files, monkeypatch):
    offer(hub="someone/clip/best.pt")
    monkeypatch.setattr(load, "hf_hub_download", lambda filename, **_: str(files / filename.replace("best", "half")))
    assert load_clip("ViT-test-8", "web").logit_scale > 0


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ({"url": f"{CLOSED}/0123/ViT-test.pt"}, f"get {CLOSED}/0123/ViT-test.pt"),
        ({"url": f"{CLOSED}/0123/ViT-test.pt", "hub": "someone/clip/"}, f"get {CLOSED}/0123/ViT-test.pt"),
        ({"hub": "someone/clip/"}, rf"\(no network\): get {CLOSED}/someone/clip"),
    ],
    ids=["url", "both", "hub"],
)
def test_without_a_network_one_line_says_what_to_get_and_which_key_to_set(offer, source, where):
    offer(**source)
    words = f"^CLIP weights 'web' of ViT-test-8 are not there .*{where}.* and set MODEL.CLIP_WEIGHTS"
    with pytest.raises(WeightsError, match=words) as caught:
        load_clip("ViT-test-8", "web")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(offer, monkeypatch):
    """`offer`, with a hub that is there and answers with an HTTP error, as web servers do to bare questions."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        monkeypatch.setattr(server.RequestHandlerClass, "log_message", lambda *_: None)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield offer
        server.shutdown()
        thread.join()


def test_the_hub_is_asked_where_the_url_fails(hub, files, monkeypatch):
    hub(url=f"{CLOSED}/x.pt", hub="someone/clip/")
    asked = []

    def download(tag, prefer_hf_hub):
        asked.append((tag["hf_hub"], prefer_hf_hub))
        return str(files / "half.pt")

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    load_clip("ViT-test-8", "web")
    assert asked == [("someone/clip/", True)]


def test_an_error_of_the_hub_is_told_in_one_line(offer, files, monkeypatch):
    offer(hub="someone/clip/")
    monkeypatch.setenv("HF_ENDPOINT", (files / "open_clip.pt").as_uri())  # something that answers well

    def fail(*_, **__):
        raise FileNotFoundError("Failed to download\n  file")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(WeightsError, match=r"\(Failed to download file\): get file:.*/someone/clip"):
        load_clip("ViT-test-8", "web")


@pytest.fixture(scope="module")
def tokenize():
    return load_clip("ViT-tiny-8", "random").tokenize


def test_tokens_are_open_clips(tokenize):
    tokens = tokenize(TEXTS)
    assert tokens.shape == (2, 77)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, open_clip.tokenize(TEXTS))


def test_a_single_text_is_one_text_and_not_its_letters(tokenize):
    assert torch.equal(tokenize("a red circle"), open_clip.tokenize(["a red circle"]))


def test_no_text_gives_no_tokens(tokenize):
    assert tokenize([]).shape == (0, 77)


def test_a_text_that_just_fits_is_kept_whole(tokenize):
    tokens = tokenize(["dog " * 75])
    assert (tokens != 0).all()
    assert tokens[0, -1] == 49407


def test_a_text_that_would_be_cut_off_is_refused(tokenize):
    with pytest.raises(TextError, match="the text 'dog dog .* is longer than the 75 tokens that CLIP reads"):
        tokenize(["cat", "dog " * 76])


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_is_refused(tokenize, text):
    with pytest.raises(TextError, match=f"the text {re.escape(repr(text))} is empty"):
        tokenize(["cat", text])


def test_the_context_is_the_architectures(architectures, monkeypatch):
    monkeypatch.setitem(architectures, "ViT-short", config(text_cfg__context_length=8))
    short = load_clip("ViT-short", "random").tokenize
    assert torch.equal(short(["a red circle"]), open_clip.tokenize(["a red circle"])[:, :8])
    with pytest.raises(TextError, match="longer than the 6 tokens"):
        short(["one two three four five six seven"])


def test_imagenets_templates_are_eighty_texts_with_one_place_for_the_label():
    assert len(set(IMAGENET_TEMPLATES)) == len(IMAGENET_TEMPLATES) == 80
    assert all(template.count("{}") == 1 for template in IMAGENET_TEMPLATES)
    assert "a photo of a {}." in IMAGENET_TEMPLATES
