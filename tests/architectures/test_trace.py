"""Any module as a graph: the published numbers, all of torchvision, odd modules."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from plain_networks import Darts, VisionTransformer, small_mobilenet_v3, small_resnet18
from searching import DARTS_V2
from torch import Tensor, nn

from ghnas.architectures.genotypes import parse_genotype
from ghnas.architectures.graph import Graph
from ghnas.architectures.tracing.trace import replace_classifier, trace
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.features import PRIMITIVES, graph_features
from ghnas.ghn.model import GHN
from ghnas.ghn.named import named_network
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
SMALL = (3, 32, 32)
DECODER = GHNConfig(hid=8, max_shape=(16, 16, 11, 11))

CASES = {
    "darts-8-5": lambda: Darts(parse_genotype(DARTS_V2), channels=8, cells=5, classes=10),
    "vit-16-3": lambda: VisionTransformer(width=16, classes=10),
    "tv:resnet18": small_resnet18,
    "tv:mobilenet_v3_small": small_mobilenet_v3,
}


def reference(name: str) -> dict[str, Any]:
    """The published implementation's numbers."""
    if not PARITY.is_dir():
        pytest.skip("needs the reference numbers in shared/parity")
    case: dict[str, Any] = json.loads((PARITY / "ghn2.json").read_text())[name]
    return case


@pytest.mark.parametrize("name", CASES)
def test_graphs_equal_the_published_ones(name: str) -> None:
    case = reference(name)
    data = graph_features([trace(CASES[name](), SMALL)])[0].data
    count = len(case["nodes"])
    assert len(data.primitive) == count
    kinds = sorted(PRIMITIVES[i] for i in data.primitive.tolist())
    assert kinds == sorted(node["primitive"] for node in case["nodes"])
    lengths = data.path_length.long()
    assert int((lengths == 1).sum()) == len(case["edges"])
    histogram = {d: n for d, n in enumerate(torch.bincount(lengths).tolist()) if n and d > 1}
    assert histogram == {int(d): n for d, n in case["virtual_edge_distance_hist"].items()}


@pytest.mark.parametrize("name", CASES)
def test_predictions_equal_the_published_ones(name: str) -> None:
    case, ghn, network = reference(name), load_ghn(PARITY / "ghn2.pt"), CASES[name]()
    predicted = ghn.predict(network, SMALL)
    assert set(predicted) == set(case["parameters"])
    for key, expected in case["parameters"].items():
        values = predicted[key].double()
        assert list(values.shape) == expected["shape"]
        scale = expected["abs_sum"]
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-4 * scale)
        assert float(values.abs().sum()) == pytest.approx(scale, rel=1e-4)
        assert float(values.square().sum()) == pytest.approx(expected["sq_sum"], rel=1e-4)
        # sums in single precision differ from processor to processor by some millionths of a
        # typical value, whatever a value's own size
        single = 1e-5 * scale / values.numel()
        assert values.flatten()[:8].tolist() == pytest.approx(expected["first"], 1e-4, single)
        assert values.flatten()[-4:].tolist() == pytest.approx(expected["last"], 1e-4, single)
    network = ghn.initialize(network, SMALL).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    images = torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, 3, 32, 32)
    with torch.no_grad():
        logits = network(images)
    torch.testing.assert_close(logits, torch.tensor(case["logits"]), rtol=1e-3, atol=1e-3)


def test_a_space_and_a_trace_give_the_same_predictions() -> None:
    torch.manual_seed(0)
    ghn, genotype = GHN(DECODER), parse_genotype(DARTS_V2)
    ours = load_space("darts").genotype_graph(genotype, SMALL, 10)  # type: ignore[attr-defined]
    traced = ghn.predict(CASES["darts-8-5"]())
    built = ghn.predict_graphs([ours])[0]
    assert set(traced) == set(built)
    for name, value in built.items():
        torch.testing.assert_close(traced[name], value)


NAMES = torchvision.models.list_models(module=torchvision.models)
# the largest of a family differ from these in widths and depths alone: all are in benchmarks/
SAMPLED = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_large",
    "regnet_x_400mf", "regnet_y_400mf", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
]  # fmt: skip


def build(name: str) -> nn.Module:
    """One of torchvision's classifiers; weights without values where its code allows it."""
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, weights=None, **settings)
    except NotImplementedError:
        return torchvision.models.get_model(name, weights=None, **settings)


@pytest.mark.parametrize("name", SAMPLED)
def test_every_parameter_of_torchvision_models(name: str) -> None:
    network = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = trace(network)
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    assert graph.parameters == shapes
    sinks = [i for i, readers in enumerate(graph.consumers) if not readers]
    auxiliary = {"googlenet": 2, "inception_v3": 1}.get(name, 0)
    assert len(sinks) == 1 + auxiliary
    assert sinks[-1] == len(graph.nodes) - 1
    predicted = GHN(DECODER).predict_graphs([graph])[0]
    assert {key: tuple(value.shape) for key, value in predicted.items()} == shapes
    assert all(bool(value.isfinite().all()) for value in predicted.values())


def test_a_trace_leaves_the_module_as_it_was() -> None:
    network = small_resnet18().eval()
    network.layer1.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trace(network)
    assert not network.training
    assert network.layer1.training
    assert not network.layer2.training
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


class Everything(nn.Module):
    """Functional layers, a class token, a scale, a shared layer, a parameter without a use."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(8, 3, 4, 4))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 65, 8))
        self.scale = nn.Parameter(torch.zeros(8))
        self.shared = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lost = nn.Parameter(torch.zeros(5))
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.conv2d(images, self.kernel, stride=4).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.scale * self.shared(self.shared(x))
        return self.head(self.attention(x, x, x)[0][:, 0])


def kinds(graph: Graph) -> list[str | None]:
    """Primitive types in the order of the nodes."""
    return [node.op.primitive for node in graph.nodes]


def test_functional_layers_and_bare_parameters() -> None:
    network = Everything()
    with pytest.warns(UserWarning, match="does not depend on lost"):
        graph = trace(network, SMALL)
    assert graph.parameters.keys() == dict(network.named_parameters()).keys()
    found = kinds(graph)
    assert found.count("pos_enc") == 1
    assert found.count("concat") == 1
    assert found.count("sum") == 2
    assert found.count("msa") == 1
    # the shared layer stands twice in the graph, its weights once
    owners = [node.name for node in graph.nodes]
    assert owners.count("shared") == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = GHN(DECODER).initialize(network, SMALL).state_dict()
    assert predicted["positions"].shape == (1, 65, 8)
    assert float(predicted["positions"].abs().sum()) > 0


class Unknown(nn.Module):
    """With an operation that nobody has taught the trace, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.special.erfcx(torch.special.erfcx(self.first(images)))
        return self.last(x.mean((2, 3)))


def test_an_unknown_operation_is_named_once() -> None:
    with pytest.warns(UserWarning, match="special_erfcx") as caught:
        graph = trace(Unknown(), SMALL)
    assert [str(item.message) for item in caught] == [
        "operation 'special_erfcx' is not known: it is passed through"
    ]
    assert kinds(graph) == ["input", "conv", "bias", "conv", "bias"]


class Squeeze(nn.Module):
    """Squeeze-and-excitation as DeepNets-1M has it, or with another activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(3, 2), nn.Linear(2, 3), activation
        self.last = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        means = images.flatten(2).mean(2)
        factors = self.activation(self.fc2(torch.relu(self.fc1(means))))
        return self.last((images * factors.view(-1, 3, 1, 1)).mean((2, 3)))


def test_squeeze_and_excitation_is_known_by_its_hard_activation() -> None:
    linear = ["conv", "bias"]
    hard = kinds(trace(Squeeze(nn.Hardswish()), SMALL))
    assert hard == ["input", *linear, *linear, "cse", *linear]
    assert kinds(trace(Squeeze(nn.Sigmoid()), SMALL)) == ["input", *linear, *linear, *linear]


class ShapeDependent(nn.Module):
    """Control flow that torch.fx cannot follow and torch.export can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        if x.shape[-1] > 4:
            x = nn.functional.max_pool2d(x, 2)
        return self.last(x.mean((2, 3)))


def test_control_flow_over_shapes() -> None:
    graph = trace(ShapeDependent(), SMALL)
    assert kinds(graph) == ["input", "conv", "bias", "max_pool", "conv", "bias"]
    assert list(graph.parameters) == ["first.weight", "first.bias", "last.weight", "last.bias"]


class ValueDependent(nn.Module):
    """Control flow over values: no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = images.mean((2, 3))
        return self.last(x) if float(x.sum()) > 0 else self.last(-x)


def test_what_cannot_be_traced_says_why() -> None:
    with pytest.raises(UserError, match=r"ValueDependent cannot be traced: torch\.fx says"):
        trace(ValueDependent(), SMALL)


def test_tied_parameters_are_predicted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
            self.second.weight = self.first.weight

        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.first(images)).mean((2, 3))

    predicted = GHN(DECODER).predict(Tied())
    assert len(predicted) == 4
    assert predicted["first.weight"] is predicted["second.weight"]


def test_the_head_can_be_kept_or_replaced() -> None:
    network, ghn = small_resnet18(), GHN(DECODER)
    kept = ghn.predict(network, keep_head=True)
    assert {"fc.weight", "fc.bias"} == dict(network.named_parameters()).keys() - kept.keys()
    replaced = replace_classifier(network, 7)
    assert ghn.predict(replaced)["fc.weight"].shape == (7, 512)
    # what stays is predicted as if the head had the classes that the hypernetwork knows
    for name, value in ghn.predict(replaced, keep_head=True).items():
        torch.testing.assert_close(value, kept[name])
    with pytest.raises(UserError, match="SqueezeNet does not end in"):
        replace_classifier(torchvision.models.squeezenet1_1(), 7)


def test_of_a_detector_the_backbone_is_read() -> None:
    network = named_network("ssdlite320_mobilenet_v3_large", 3, (3, 320, 320))
    with pytest.warns(UserWarning, match="its backbone is read alone, and head left out"):
        predicted = GHN(DECODER).predict(network)
    wanted = dict(network.named_parameters())
    assert predicted.keys() == {name for name in wanted if name.startswith("backbone.")}
    assert all(predicted[name].shape == wanted[name].shape for name in predicted)


def test_segmentation_is_read_as_a_whole() -> None:
    network = named_network("lraspp_mobilenet_v3_large", 5, (3, 224, 224))
    predicted = GHN(DECODER).predict(network)
    assert predicted.keys() == dict(network.named_parameters()).keys()
    network.load_state_dict(predicted, strict=False)
    network.train()  # running statistics are not predicted
    assert network(torch.rand(2, 3, 64, 64))["out"].shape == (2, 5, 64, 64)
