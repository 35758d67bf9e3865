"""The backbone as the fit of a cascade begins: its module, and whether it embeds whole numbers."""

from dataclasses import replace

from torch import nn

from .._cut import LogitsModule, token_counts
from .._cut.graphs import embeds
from .._engines.torch_engine import as_tensors
from .._exits.building import N_PROBE_SAMPLES
from .._parts import Parts
from .._schema import InputSchema, as_integers
from .classifiers import fitted_stage
from .members import Member, check_is_trained, instantiate
from .spec import CascadeSpec
from .weights import normalised_weights


def instantiated_backbone(
    spec: CascadeSpec, schema: InputSchema, parts: Parts, backbone: Member
) -> tuple[InputSchema, nn.Module]:
    """Return the backbone's module (a stage if it is a classifier), and the schema that knows whether it embeds."""
    if backbone.is_classifier:
        weights = normalised_weights(spec.class_weight, schema, parts.train)
        samples = parts.train.encoded(schema)
        return schema, fitted_stage(backbone, schema, samples, weights, spec.stored)
    if spec.takes_trained:
        check_is_trained(backbone)
    inputs = parts.train.inputs
    X, codes = schema.as_module_input(inputs), parts.train.codes
    module = instantiate(backbone, X, codes, schema, spec.device)
    logits_module = LogitsModule(module, schema.input_names)
    few = tuple(array[:N_PROBE_SAMPLES] for array in inputs)
    takes_tokens = schema.input_names is None and embeds(logits_module, few[0], spec.device)
    if takes_tokens:
        few = (as_integers(few[0]),)
        schema = replace(schema, embeds=True, dtypes=(few[0].dtype,))
    if not (takes_tokens or schema.input_names):
        return schema, module
    tensors = tuple(tensor.to(spec.device) for tensor in as_tensors(few))
    return replace(schema, n_tokens=token_counts(logits_module, tensors)), module
