"""FLOPs of products, 2 per multiply-add: the formulas that `torch.utils.flop_counter` lacks, by the operator's name.

One price for every kernel: attention pays for all keys whether or not a kernel skips the masked ones, and what is
quantised pays like what is not. Decompositions cost about what they do in LAPACK (Golub and Van Loan, Matrix
Computations).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry


class Call(NamedTuple):
    """One call of an operator."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def get(self, *names: str) -> Any:
        """The argument of the first of these names that the operator has."""
        places = _places(self.func)
        name = next(name for name in names if name in places)
        place, default = places[name]
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


Formula = Callable[[Call], float]


@functools.cache
def _places(func: Any) -> dict[str, tuple[int, Any]]:
    return {arg.name: (place, arg.default_value) for place, arg in enumerate(func._schema.arguments)}


SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
LIKE_A_PRODUCT = re.compile(r"(^|_)(mm|bmm|matmul|linear|gemm|mv|dot)($|_)|attention|conv(?!ert)|rnn|lstm|gru")


def formula_of(func: Any) -> Formula | None:
    """The formula of a product, torch's own where only it has one; None where there is none."""
    torchs = flop_registry.get(func._overloadpacket)
    if torchs is None:
        return FORMULAS.get(func._schema.name)
    return FORMULAS.get(func._schema.name, lambda call: torchs(*call.args, **call.kwargs, out_val=call.out))


def guess_of(func: Any) -> Formula | None:
    """The price of what only sounds like a product: every result pays for the longest row that was given."""
    name = func._schema.name.partition("::")[2]
    return _longest_row if LIKE_A_PRODUCT.search(name) and not name.endswith(("pack", "params")) else None


def tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among arguments or results, in lists too."""
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (list, tuple)):
            yield from tensors(part)


def stored(x: Tensor) -> int:
    """Values that a tensor stores: of a sparse one those that are not left out."""
    if not is_sparse(x):
        return x.numel()
    return (x._values() if x.layout == torch.sparse_coo else x.values()).numel()


def is_sparse(x: Tensor) -> bool:
    """Whether values may be left out."""
    return x.layout in SPARSE


def _longest_row(call: Call) -> float:
    longest = max((x.size(-1) for x in tensors(call.args) if x.dim()), default=1)
    return 2 * longest * sum(x.numel() for x in tensors([call.out]))


def _rows(call: Call) -> float:
    """Every result is a row of the first argument times a column."""
    return 2 * call.out.numel() * call.args[0].shape[-1]


def _matrices(left: int) -> Formula:
    """Two matrices, batches of them, or a matrix and a vector, from that argument on; any may be sparse."""

    def formula(call: Call) -> float:
        a, b = call.args[left : left + 2]
        if is_sparse(b) and not is_sparse(a):
            return 2 * stored(b) * a.size(-2)
        columns = b.size(-1) if b.dim() > 1 else 1
        # what a sparse row holds is at most all that its matrix stores
        return 2 * stored(a) * (min(columns, stored(b)) if is_sparse(b) else columns)

    return formula


def _attention(call: Call) -> float:
    """Each query by all keys, and their weights by all values."""
    query, key, value = call.args[:3]
    return 2 * (query.numel() // query.shape[-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _multi_head(query: Tensor, key: Tensor, width: int) -> float:
    """Projections of queries, keys, values and output, and attention; of a ragged batch, sequence by sequence."""
    if query.is_nested:
        return sum(_multi_head(q, k, width) for q, k in zip(query.unbind(), key.unbind(), strict=True))
    queries, keys = query.numel() // width, key.numel() // width
    return 2 * width * width * (2 * queries + 2 * keys) + 4 * width * queries * key.shape[-2]


def _encoder_layer(call: Call) -> float:
    x, width = call.get("src"), call.get("embed_dim")
    inner = call.get("ffn_weight_1").numel() + call.get("ffn_weight_2").numel()
    return _multi_head(x, x, width) + 2 * (x.numel() // width) * inner


def _recurrent(call: Call) -> float:
    """Every token by all matrices."""
    x = call.get("input")
    return 2 * (x.numel() // x.shape[-1]) * sum(part.numel() for part in tensors(call.args[1:5]) if part.dim() == 2)


def _quantised_recurrent(gates: int) -> Formula:
    """Packed weights do not say their shapes: these follow from input, state, layers and directions."""

    def formula(call: Call) -> float:
        x, state = call.get("input", "data"), next(tensors([call.get("hx")]))
        layers, both = (call.get("num_layers"), call.get("bidirectional")) if "cell" not in str(call.func) else (1, 0)
        hidden, directions = state.shape[-1], 1 + bool(both)
        rows = x.shape[-1] + hidden + (layers - 1) * (directions + 1) * hidden
        return 2 * (x.numel() // x.shape[-1]) * directions * gates * hidden * rows

    return formula


def _convolution(call: Call) -> float:
    """Each weight of a channel's filter at every place of the result, or, transposed, of what was given."""
    given, weight = call.args[:2]
    if isinstance(weight, torch.ScriptObject):
        weight = weight.unpack()[0]  # type: ignore[attr-defined]
    return 2 * max(given.numel() // weight.shape[1], call.out.numel() // weight.shape[0]) * weight.numel()


def _convolution_in_time(call: Call) -> float:
    """A filter of (K, C, O) at every place of (T, B, O)."""
    return 2 * call.out.numel() * math.prod(call.args[1].shape[:2])


def _trilinear(call: Call) -> float:
    """A product of three and a sum, at all places that they span together."""
    shapes = []
    for x, axes in zip(call.args[:3], call.args[3:6], strict=True):
        for axis in axes:
            x = x.unsqueeze(axis)
        shapes.append(x.shape)
    return 3 * math.prod(torch.broadcast_shapes(*shapes))


def _distances(call: Call) -> float:
    """Each coordinate of each pair: a difference, a power, a sum."""
    return 3 * call.out.numel() * call.args[0].shape[-1]


def _fourier(call: Call) -> float:
    x = max(call.args[0], call.out, key=Tensor.numel)
    return math.ceil(5 * x.numel() * math.log2(max(math.prod(x.shape[axis] for axis in call.get("dim")), 2)))


def _decomposition(factor: float) -> Formula:
    """So many times rows by columns by the smaller of them, for each matrix; and for right-hand sides 2 a value."""

    def formula(call: Call) -> float:
        x, *others = tensors(call.args)
        rows, columns = x.shape[-2:]
        sides = sum(other.numel() for other in others if other.dtype != torch.int32)
        return factor * x.numel() * min(rows, columns) + 2 * sides * max(rows, columns)

    return formula


def _solution(matrix: str, side: str, factor: int) -> Formula:
    """Right-hand sides through triangles."""
    return lambda call: factor * call.get(side).numel() * call.get(matrix).shape[-1]


def _named(namespace: str, names: str, formula: Formula) -> dict[str, Formula]:
    return {f"{namespace}::{name}": formula for name in names.split()}


FORMULAS: dict[str, Formula] = (
    _named("aten", "mm bmm mv _sparse_mm _sparse_sparse_matmul", _matrices(0))
    | _named("aten", "addmm addmm_ baddbmm baddbmm_ addmv addmv_ addbmm addbmm_", _matrices(1))
    | _named("aten", "_addmm_activation _sparse_addmm sspaddmm hspmm", _matrices(1))
    | _named("aten", "sparse_sampled_addmm", lambda call: 2 * stored(call.args[0]) * call.args[1].shape[-1])
    | _named("aten", "dot vdot", lambda call: 2 * call.args[0].numel())
    | _named("aten", "_int_mm _weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu mkldnn_linear", _rows)
    | _named("aten", "fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation", _rows)
    | _named("aten", "fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation", _rows)
    | _named("quantized", "linear linear_relu linear_dynamic linear_relu_dynamic linear_leaky_relu linear_tanh", _rows)
    | _named("quantized", "linear_dynamic_fp16 linear_relu_dynamic_fp16", _rows)
    | _named("aten", "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention", _attention)
    | _named("aten", "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_cudnn_attention", _attention)
    | _named("aten", "_scaled_dot_product_fused_attention_overrideable", _attention)
    | _named("aten", "_scaled_dot_product_attention_math_for_mps", _attention)
    | _named("aten", "_native_multi_head_attention", lambda call: _multi_head(call.args[0], call.args[1], call.args[3]))
    | _named("aten", "_transformer_encoder_layer_fwd", _encoder_layer)
    | _named("aten", "mkldnn_rnn_layer _cudnn_rnn miopen_rnn", _recurrent)
    | _named("aten", "mkldnn_rnn_layer_backward", lambda call: 2 * _recurrent(call))
    | _named("aten", "quantized_lstm", _quantised_recurrent(4))
    | _named("aten", "quantized_gru", _quantised_recurrent(3))
    | _named("quantized", "quantized_lstm_cell_dynamic", _quantised_recurrent(4))
    | _named("quantized", "quantized_gru_cell_dynamic", _quantised_recurrent(3))
    | _named("quantized", "quantized_rnn_relu_cell_dynamic quantized_rnn_tanh_cell_dynamic", _quantised_recurrent(1))
    | _named("aten", "mkldnn_convolution conv_depthwise3d _conv_depthwise2d", _convolution)
    | _named("quantized", "conv1d conv2d conv3d conv1d_relu conv2d_relu conv3d_relu", _convolution)
    | _named("aten", "conv_tbc", _convolution_in_time)
    | _named("aten", "_trilinear", _trilinear)
    | _named("aten", "_cdist_forward _euclidean_dist _pdist_forward", _distances)
    | _named("aten", "_fft_r2c _fft_c2r _fft_c2c", _fourier)
    | _named("aten", "linalg_cholesky_ex linalg_ldl_factor_ex linalg_lu_factor_ex linalg_lu", _decomposition(1))
    | _named("aten", "cholesky _linalg_det _linalg_slogdet _linalg_solve_ex", _decomposition(1))
    | _named("aten", "linalg_inv_ex cholesky_inverse", _decomposition(2))
    | _named("aten", "linalg_lstsq linalg_qr geqrf linalg_householder_product", _decomposition(4))
    | _named("aten", "_linalg_eigh", _decomposition(10))
    | _named("aten", "linalg_eig _linalg_eigvals _linalg_svd linalg_matrix_exp", _decomposition(25))
    | _named("aten", "linalg_solve_triangular", _solution("self", "B", 1))
    | _named("aten", "triangular_solve", _solution("A", "self", 1))
    | _named("aten", "cholesky_solve", _solution("input2", "self", 2))
    | _named("aten", "linalg_lu_solve", _solution("LU", "B", 2))
    | _named("aten", "linalg_ldl_solve", _solution("LD", "B", 2))
    | _named("aten", "ormqr", _solution("self", "other", 4))
)
