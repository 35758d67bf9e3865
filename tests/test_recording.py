import copy
import pickle
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from sklearn_jeidnn._cut import cut
from sklearn_jeidnn._cut.recording import RecordingError, recorded
from sklearn_jeidnn._cut.threads import patching_one_thread

from .conftest import TinyConv, quick_classifier
from .test_comparing import EXITS, WIDTH, Outer

X = torch.linspace(-1, 1, 9 * 64).view(9, 64)


def stages_of(module, frozen=False):
    options = {"head_cost": lambda _: 0, "frozen": frozen}
    return cut(module.eval(), EXITS, (X[:3],), None, 10, **options)[0]


def run(stages, X):
    carried = (X.clone(),)
    for stage in stages:
        carried = stage(*carried)
    return carried


def call_elsewhere(module, X, found):
    try:
        found.append(module(X))
    except Exception as error:
        found.append(error)


@pytest.mark.parametrize("branches", [False, True])
def test_modules_of_other_threads_work_while_one_is_cut(branches):
    """``torch.fx`` and ``torch.export`` patch all modules; the forward that is traced calls one from another thread."""
    other, found = TinyConv().eval(), []

    class Calling(Outer):
        def forward(self, x):
            if branches and x.shape[1] != 64:  # exported
                raise ValueError
            thread = threading.Thread(target=call_elsewhere, args=(other, X, found))
            thread.start()
            thread.join()
            return super().forward(x)

    stages = stages_of(Calling())
    assert any(stage.learning is not None for stage in stages) == branches
    for answer in found:
        torch.testing.assert_close(answer, other(X))


def test_tracing_patches_nothing():
    before = nn.Module.__call__, nn.Module.__getattr__
    seen = []

    class Looking(Outer):
        def forward(self, x):
            seen.append((nn.Module.__call__, nn.Module.__getattr__))
            return super().forward(x)

    recorded(Looking().eval())
    assert seen and all(methods == before for methods in seen)


def test_what_torch_patches_is_patched_for_one_thread_and_restored():
    other, found, before = TinyConv().eval(), [], nn.Module.__call__

    class Calling(Outer):
        def forward(self, x):
            assert nn.Module.__call__ is not before
            thread = threading.Thread(target=call_elsewhere, args=(other, X, found))
            thread.start()
            thread.join()
            return super().forward(x)

    with patching_one_thread():
        torch.fx.symbolic_trace(Calling())
    assert nn.Module.__call__ is before
    torch.testing.assert_close(found[0], other(X))


def test_stages_are_loaded_by_several_threads_at_once():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stages = {width: stages_of(Blocks(width)) for width in (5, 7)}
    stored = {width: pickle.dumps(of_width) for width, of_width in stages.items()}
    failed = []

    def load(width):
        for _ in range(10):
            try:
                assert torch.equal(run(pickle.loads(stored[width]), X), run(stages[width], X))
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=load, args=(width,)) for width in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not failed


class Blocks(nn.Module):
    """Its code depends on its width."""

    def __init__(self, width):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(width))
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.classifier(x)


class Remembering(Outer):
    def __init__(self):
        super().__init__()
        self.outputs, self.shift = [], torch.ones(WIDTH)

    def prepared(self, x):
        self.outputs.clear()
        self.last = self.stem(x) + self.shift + torch.arange(WIDTH)
        self.outputs.append(self.last)
        return self.last


def test_what_a_forward_leaves_behind_is_as_if_it_was_only_run():
    module = Remembering()
    names = {*vars(module), "last"}
    stages = stages_of(module)
    assert set(vars(module)) == names
    assert isinstance(module.last, torch.Tensor) and isinstance(module.outputs[0], torch.Tensor)
    torch.testing.assert_close(run(stages, X), module(X))


@pytest.mark.parametrize("inside", [False, True])
def test_a_module_that_keeps_an_activation_is_stored_and_copied_after_fit(digits, inside):
    module = Remembering()
    if inside:
        module.blocks[0] = RememberingBlock()
    fitted = quick_classifier(module=module, max_epochs=1).fit(*digits)
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert (again.predict(digits[0]) == fitted.predict(digits[0])).all()


class RememberingBlock(nn.Linear):
    def __init__(self):
        super().__init__(WIDTH, WIDTH)

    def forward(self, x):
        output = super().forward(x)
        if self.training:
            self.last = output
        return output


@dataclass
class Output:
    logits: torch.Tensor


Named = namedtuple("Named", ["hidden", "logits"])
ANSWERS = {
    "dict": lambda logits: {"hidden": logits + 1, "logits": logits},
    "dataclass": Output,
    "named tuple": lambda logits: Named(logits + 1, logits),
    "tuple": lambda logits: (logits, logits + 1),
    "list": lambda logits: [logits],
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("exported", [False, True])
def test_logits_are_found_in_what_a_module_answers(kind, exported):
    class Answering(Outer):
        def forward(self, x, scale=None):
            if exported and x.shape[0] < 0:
                raise ValueError
            return ANSWERS[kind](super().forward(x))

    module = Answering()
    logits = ANSWERS[kind](super(Answering, module.eval()).forward(X))
    logits = logits[0] if kind in ("tuple", "list") else dict_of(logits)["logits"]
    torch.testing.assert_close(run(stages_of(module), X), logits)


def dict_of(answer):
    return answer if isinstance(answer, dict) else {"logits": answer.logits}


def test_an_answer_without_logits_is_refused_with_what_was_found():
    class Answering(Outer):
        def forward(self, x):
            return {"scores": super().forward(x)}

    with pytest.raises(ValueError, match=r"answered dict with 'scores'.*as 'logits'"):
        stages_of(Answering())


class Recurrent(Outer):
    def __init__(self, kind):
        super().__init__()
        self.blocks = nn.ModuleList(kind(WIDTH, WIDTH, batch_first=True) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)[:, None].expand(-1, 4, -1)
        for block in self.blocks:
            x, state = block(x)
        state = state[0] if isinstance(self.blocks[0], nn.LSTM) else state
        return self.classifier(x[:, -1] + state[-1])


class PassesState(Recurrent):
    def forward(self, x):
        x, state = self.stem(x)[:, None].expand(-1, 4, -1), None
        for block in self.blocks:
            x, state = block(x, state)
        return self.classifier(x[:, -1])


@pytest.mark.parametrize(
    "module", [Recurrent(nn.LSTM), Recurrent(nn.GRU), PassesState(nn.LSTM), PassesState(nn.GRU)]
)
def test_exits_read_the_first_tensor_of_a_block_that_returns_several(module):
    stages = stages_of(module)
    assert stages[0].read(stages[0](X)).shape == (9, 4, WIDTH)
    some = torch.tensor([7, 2])
    carried = stages[1](*stages[0].keep_rows(stages[0](X), some))
    torch.testing.assert_close(stages[2](*carried), module(X)[some], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(pickle.loads(pickle.dumps(stages)), X), module(X))


def test_hooks_of_a_module_are_traced_with_it():
    module = Outer()
    module.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))
    module.register_forward_hook(lambda _, __, output: 2 * output)
    torch.testing.assert_close(run(stages_of(module), X), module(X))


def test_a_module_that_scales_its_input_in_place_leaves_the_samples():
    class Scaling(Outer):
        def forward(self, x):
            x.sub_(0.3).div_(0.4)
            return super().forward(x)

    samples = X.clone()
    module = Scaling()
    stages = cut(module.eval(), EXITS, (samples,), None, 10, head_cost=lambda _: 0, frozen=False)[0]
    assert torch.equal(samples, X)
    torch.testing.assert_close(run(stages, X), module(X.clone()))


def test_parameters_and_buffers_are_read_anew_in_every_call():
    class Reading(Outer):
        def prepared(self, x):
            return self.stem(x) * self.norm.weight.exp() + self.mean * 2

    module = Reading()
    stages = stages_of(module)
    with torch.no_grad():
        module.norm.weight.fill_(0.5)
        module.mean.fill_(3.0)
    torch.testing.assert_close(run(stages, X), module(X))


def test_a_replaced_forward_is_not_traced_past():
    module = Outer()
    module.forward = lambda x: Outer.forward(module, 2 * x)
    with pytest.raises(RecordingError, match="forward of Outer was replaced"):
        recorded(module.eval())


def test_modules_that_cannot_be_copied_are_recorded():
    module = Outer()
    module.lock = threading.Lock()
    torch.testing.assert_close(run(stages_of(module), X), module(X))
