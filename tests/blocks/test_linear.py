import pytest
import torch
import torch.nn.functional as F

from lexome.blocks import (
    GatedMlp,
    Linear,
    Mlp,
    activated,
    by_rows,
    gelu_tanh,
    large_layers,
    packed,
    packed_bytes,
)
from lexome.blocks.linear import _has_onednn, _OneDnnLinear, _use_onednn, linear

SHAPES = [((64, 256), 300), ((2, 70, 128), 129), ((3, 5), 4), ((1, 1, 512), 512), ((0, 8), 3)]


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_linear_of_pytorch(shape, outputs, bias):
    torch.manual_seed(0)
    layer, x = Linear(shape[-1], outputs, bias=bias), torch.randn(shape)
    with torch.no_grad():
        expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
        torch.testing.assert_close(layer(x), expected.float(), atol=3e-6, rtol=1e-5)


def test_views_need_no_copy_to_be_right():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 200, 300), torch.randn(256, 200)
    expected = x.transpose(1, 2) @ weight.T
    torch.testing.assert_close(linear(x.transpose(1, 2), weight), expected, atol=1e-4, rtol=1e-4)


def gradients(function, shape, outputs):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(outputs, shape[-1]) / shape[-1] ** 0.5
    leaves = [t.requires_grad_() for t in (x, weight, torch.randn(outputs))]
    function(*leaves).sin().sum().backward()
    return [t.grad for t in leaves]


@pytest.mark.parametrize("shape", [(64, 256), (2, 40, 128)])
def test_gradients_are_those_of_pytorch(shape):
    ours, theirs = gradients(linear, shape, 300), gradients(F.linear, shape, 300)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_frozen_weights_get_no_gradient():
    x, weight = torch.randn(64, 256, requires_grad=True), torch.randn(256, 256)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(64, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # from asking to switch oneDNN off
def test_only_large_float32_products_on_a_cpu_take_the_other_kernel(monkeypatch):
    monkeypatch.setattr("lexome.blocks.linear._X86", True)
    large, weight = torch.randn(512, 256), torch.randn(256, 256)
    assert _use_onednn(large, weight) == torch.backends.mkldnn.is_available()
    assert not _use_onednn(large[:4], weight)
    assert _use_onednn(torch.randn(1, 1024), torch.randn(1024, 1024)) == _use_onednn(large, weight)
    assert not _use_onednn(large.double(), weight.double())
    assert not _use_onednn(large.bfloat16(), weight)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not _use_onednn(large, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not _use_onednn(large, weight)
        assert linear(large, weight).dtype is torch.bfloat16


def test_a_second_derivative_is_refused():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(
        _OneDnnLinear.apply(x, weight, None).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize("activation", [F.gelu, gelu_tanh, torch.relu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [2, 300])
def test_a_fused_activation_is_the_activation(activation, dtype, rows):
    torch.manual_seed(0)
    layer, x = Linear(128, 130).to(dtype), torch.randn(rows, 128, dtype=dtype)
    with torch.no_grad():
        expected = activation(F.linear(x.float(), layer.weight.float(), layer.bias.float()))
        tolerance = 3e-6 if dtype is torch.float32 else 2e-2
        got = activated(layer, activation, x)
        torch.testing.assert_close(got.float(), expected, atol=tolerance, rtol=tolerance)


def test_an_adapter_is_not_passed_by():
    double = torch.nn.Sequential(Linear(128, 128), torch.nn.Identity())
    x = torch.randn(300, 128)
    with torch.no_grad():
        torch.testing.assert_close(activated(double, F.gelu, x), F.gelu(double(x)))


@pytest.mark.parametrize("shape", [(7, 5, 3), (35, 3), (1, 1, 3)])
@pytest.mark.parametrize("numbers", [1, 12, 1000])
def test_rows_are_independent_of_how_many_go_together(monkeypatch, shape, numbers):
    monkeypatch.setattr("lexome.blocks.linear._CACHED", numbers)
    x, y = torch.randn(shape), torch.randn(shape).transpose(0, 0)
    expected = (x * y).cumsum(-1)
    with torch.no_grad():
        assert torch.equal(by_rows(lambda a, b: (a * b).cumsum(-1), x, y, widest=6), expected)


def test_rows_go_together_where_gradients_are_wanted(monkeypatch):
    monkeypatch.setattr("lexome.blocks.linear._CACHED", 1)
    seen = []
    by_rows(lambda x: seen.append(x.shape) or x, torch.randn(2, 3, 4), widest=4)
    assert seen == [(2, 3, 4)]


@pytest.mark.parametrize("net", [Linear(256, 300), Mlp(256, 300), GatedMlp(256, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 300])
def test_packed_weights_give_the_same_products(net, dtype, rows, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    net, x = net.to(dtype).eval(), torch.randn(rows, 256, dtype=dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    with torch.no_grad():
        expected = net(x)
        with packed(net):
            torch.testing.assert_close(net(x), expected, atol=tolerance, rtol=tolerance)
        assert torch.equal(net(x), expected)


def test_weights_are_packed_for_as_long_as_asked_and_only_large_ones(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    if not _has_onednn(torch.empty(1)):
        pytest.skip("nothing is multiplied by oneDNN here")
    net = torch.nn.Sequential(Linear(256, 256), Linear(256, 3), torch.nn.Linear(256, 256))
    large = net[0]
    names = set(net.state_dict())
    with packed(net):
        assert [getattr(layer, "packed", None) is None for layer in net] == [False, True, True]
        assert set(net.state_dict()) == names
        assert packed_bytes(net) == large.weight.nbytes
    assert large.packed is None


def test_threads_share_only_products_that_are_worth_it(monkeypatch):
    net = torch.nn.Sequential(Linear(256, 256), Linear(1024, 1024), torch.nn.Linear(1024, 1024))
    for threads, count in ((1, 2), (2, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert len(large_layers(net)) == count


def test_gradients_are_those_of_the_weights_though_packed(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    net, x = Linear(256, 256), torch.randn(2, 256)
    with packed(net):
        net(x).sum().backward()
    torch.testing.assert_close(net.weight.grad, x.sum(0).expand(256, -1))
