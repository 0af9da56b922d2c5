"""Solutions as learners type them: three wrong ones fail with the claim that says why, three right
but unusual ones pass. Five lessons of phase 5, drawn at random, and five of phases 7 and 8.
"""

import textwrap

import pytest
import solutions_phases_7_8 as later
from engine import Engine, Job

from common.course.practice import regions_of
from common.lessons import find_lesson

# lesson, title of the region, what the learner typed, and the claim that must fail
WRONG = [
    # the windows move by one pixel, whatever the stride
    (
        "05/01",
        "The definition",
        """
        x = F.pad(x, [padding] * 4)
        height, width = weight.shape[2:]
        down = output_size(x.shape[2], height, stride)
        across = output_size(x.shape[3], width, stride)
        output = x.new_zeros(len(x), len(weight), down, across)
        for row in range(down):
            for column in range(across):
                window = x[:, :, row : row + height, column : column + width]
                for channel, kernel in enumerate(weight):
                    output[:, channel, row, column] = (window * kernel).sum(dim=(1, 2, 3))
        return output
        """,
        "loops",
    ),
    # the last window counts, instead of the sum over all of them
    (
        "05/01",
        "The way back",
        """
        channels, *kernel = weight.shape[1:]
        filters = weight.reshape(groups, len(weight) // groups, -1)
        columns = filters.mT @ y.reshape(len(y), groups, -1, y.shape[2:].numel())
        patches = columns.reshape(len(y), groups * channels, *kernel, *y.shape[2:])
        height, width = size
        x = y.new_zeros(len(y), groups * channels, height + 2 * padding, width + 2 * padding)
        row_of = positions(x.shape[2], kernel[0], stride, dilation)
        column_of = positions(x.shape[3], kernel[1], stride, dilation)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                x[:, :, row_of[i][:, None], column_of[j]] = patches[:, :, i, j]
        return x[:, :, padding : padding + height, padding : padding + width]
        """,
        "matrix",
    ),
    # the gradient of the bias is a mean over the batch
    (
        "05/01",
        "Gradients",
        """
        grad_x = conv2d_transposed(grad, weight, x.shape[2:], stride, padding, dilation, groups)
        patches = windows(F.pad(x, [padding] * 4), weight.shape[2:], stride, dilation)
        columns = patches.reshape(len(x), groups, -1, patches.shape[4:].numel())
        grads = grad.reshape(len(x), groups, -1, columns.shape[3])
        grad_weight = (grads @ columns.mT).sum(dim=0).reshape(weight.shape)
        return grad_x, grad_weight, grad.mean(dim=0).sum(dim=(1, 2))
        """,
        "by-bias",
    ),
    # a ReLU in front of the sum
    (
        "05/07",
        "The residual block",
        """
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.bn2(self.conv2(branch)).relu()
        if not self.residual:
            return branch
        shortcut = x if self.downsample is None else self.downsample(x)
        return branch + shortcut
        """,
        "by-hand",
    ),
    # pooling instead of every second pixel
    (
        "05/07",
        "A shortcut without weights",
        """
        x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        return F.pad(x, [0, 0, 0, 0, 0, self.extra])
        """,
        "padded",
    ),
    # gradients of the batches before are still in .grad
    (
        "05/07",
        "Ask each layer",
        """
        training.cross_entropy(model, batch).backward()
        norms = []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                norms.append(module.weight.norm().item())
        return norms
        """,
        "explodes",
    ),
    # the ReLU behind the sum is forgotten
    (
        "05/08",
        "Narrow, 3x3, wide",
        """
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.bn2(self.conv2(branch)).relu()
        branch = self.bn3(self.conv3(branch))
        return branch + (x if self.downsample is None else self.downsample(x))
        """,
        "logits",
    ),
    # groups are overlooked: every filter is taken to read all channels
    (
        "05/08",
        "Count with hooks",
        """
        work = {}

        def add(layer, inputs, output):
            kind = "linear"
            products = inputs[0].shape[1]
            if isinstance(layer, nn.Conv2d):
                kind = "x".join(map(str, layer.kernel_size))
                products *= layer.kernel_size[0] * layer.kernel_size[1]
            work[kind] = work.get(kind, 0) + output.numel() * products

        handles = []
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                handles.append(layer.register_forward_hook(add))
        model(x)
        for handle in handles:
            handle.remove()
        return work
        """,
        "published",
    ),
    # ReLU before batch norm
    (
        "05/08",
        "Norm and ReLU first",
        """
        branch = self.conv1(self.bn1(x.relu()))
        branch = self.conv2(self.bn2(branch.relu()))
        return x + branch
        """,
        "first",
    ),
    # each number is dropped by itself, as in dropout
    (
        "05/10",
        "Stochastic depth",
        """
        if not training:
            return change
        is_kept = torch.rand_like(change) >= rate
        return change * is_kept / (1 - rate)
        """,
        "whole",
    ),
    # what is kept is not made larger
    (
        "05/10",
        "Stochastic depth",
        """
        if not training:
            return change
        is_kept = torch.rand(len(change), 1, 1, 1, device=change.device) >= rate
        return change * is_kept
        """,
        "whole",
    ),
    # always up to the next multiple
    ("05/10", "A multiple of eight", "return math.ceil(channels / 8) * 8", "parameters"),
    # the moves are taken the wrong way round
    (
        "05/project-cifar10",
        "mirrored and moved, a whole batch at once",
        """
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        return torch.stack(
            [
                picture.roll((down, right), dims=(1, 2))
                for picture, (down, right) in zip(x, moves.tolist())
            ]
        )
        """,
        "moved",
    ),
    # filters in the columns, not transposed
    (
        "05/project-cifar10",
        "directions that do not vary together",
        """
        patches = F.unfold(x, size).transpose(1, 2).flatten(0, 1)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T))
        filters = (directions / (variances + eps).sqrt()).reshape(-1, x.shape[1], size, size)
        return torch.cat([filters, -filters])
        """,
        "by-hand",
    ),
    # the average jumps to the weights, the weights stay where they are
    (
        "05/project-cifar10",
        "back to the average",
        """
        for average, weights in zip(slow.state_dict().values(), model.state_dict().values()):
            if weights.is_floating_point():
                average.lerp_(weights, 1 - keep)
        """,
        "pulled",
    ),
]

# lesson, title of the region, and what is right, too
RIGHT = [
    # torch cuts the windows
    (
        "05/01",
        "The definition",
        """
        x = F.pad(x, [padding] * 4)
        windows = x.unfold(2, weight.shape[2], stride).unfold(3, weight.shape[3], stride)
        return torch.einsum("bcyxij,ocij->boyx", windows, weight)
        """,
    ),
    # one group after the other
    (
        "05/01",
        "One matrix product",
        """
        patches = windows(F.pad(x, [padding] * 4), weight.shape[2:], stride, dilation)
        parts = []
        for share, filters in zip(patches.chunk(groups, dim=1), weight.chunk(groups)):
            parts.append(torch.einsum("bcijyx,ocij->boyx", share, filters))
        return torch.cat(parts, dim=1) + bias.reshape(1, -1, 1, 1)
        """,
    ),
    # autograd does the work
    (
        "05/01",
        "Gradients",
        """
        bias = grad.new_zeros(len(weight))
        wanted = [each.detach().requires_grad_() for each in (x, weight, bias)]
        output = conv2d(*wanted, stride, padding, dilation, groups)
        return torch.autograd.grad(output, wanted, grad)
        """,
    ),
    (
        "05/07",
        "The residual block",
        """
        out = self.conv1(x)
        out = torch.relu(self.bn1(out))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out += self.downsample(x) if self.downsample else x
        return out.clamp_min(0)
        """,
    ),
    (
        "05/07",
        "A shortcut without weights",
        """
        kept = nn.functional.max_pool2d(x, kernel_size=1, stride=2)
        zeros = kept.new_zeros(len(x), self.extra, *kept.shape[2:])
        return torch.cat([kept, zeros], dim=1)
        """,
    ),
    (
        "05/07",
        "Ask each layer",
        """
        weights = [layer.weight for layer in model.modules() if type(layer) is nn.Conv2d]
        loss = training.cross_entropy(model, batch)
        return [float(grad.norm()) for grad in torch.autograd.grad(loss, weights)]
        """,
    ),
    (
        "05/08",
        "Narrow, 3x3, wide",
        """
        shortcut = self.downsample(x) if self.downsample else x
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = nn.functional.relu(norm(conv(x)))
        return nn.functional.relu(shortcut + self.bn3(self.conv3(x)))
        """,
    ),
    (
        "05/08",
        "From picture to logits",
        """
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(start_dim=1))
        """,
    ),
    (
        "05/08",
        "Norm and ReLU first",
        """
        first = nn.Sequential(self.bn1, nn.ReLU(), self.conv1)
        second = nn.Sequential(self.bn2, nn.ReLU(), self.conv2)
        return second(first(x)) + x
        """,
    ),
    # dropout of whole pictures: a tensor of ones, one number each
    (
        "05/10",
        "Stochastic depth",
        """
        ones = change.new_ones(len(change), 1, 1, 1)
        return change * nn.functional.dropout(ones, rate, training)
        """,
    ),
    (
        "05/10",
        "A multiple of eight",
        """
        below = math.floor(channels / 8) * 8
        nearest = below if channels - below < 4 else below + 8
        return nearest if nearest >= 0.9 * channels else nearest + 8
        """,
    ),
    (
        "05/10",
        "From MobileNet's block",
        """
        excite = mobilenet.SqueezeExcite(inputs * wider, round(inputs * 0.25), nn.SiLU, nn.Sigmoid)
        mobilenet.InvertedResidual.__init__(
            self, inputs, inputs * wider, outputs, kernel, stride, nn.SiLU, excite
        )
        self.rate = rate
        """,
    ),
    # one picture after the other
    (
        "05/project-cifar10",
        "mirrored and moved, a whole batch at once",
        """
        most = int(moves.abs().max())
        height, width = x.shape[2:]
        found = []
        for picture, flipped, (down, right) in zip(x, mirrored, moves.tolist()):
            picture = picture.flip(2) if flipped else picture
            picture = F.pad(picture[None], [most] * 4, mode="reflect")[0]
            top, left = most + down, most + right
            found.append(picture[:, top : top + height, left : left + width])
        return torch.stack(found)
        """,
    ),
    # an SVD of the patches without their mean
    (
        "05/project-cifar10",
        "directions that do not vary together",
        """
        patches = F.unfold(x, size).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(dim=0)
        _, spread, rows = torch.linalg.svd(patches, full_matrices=False)
        variances = (spread**2 / (len(patches) - 1)).flip(0)
        filters = rows.flip(0) / (variances + eps).sqrt()[:, None]
        filters = filters.reshape(-1, x.shape[1], size, size)
        return torch.cat([filters, -filters])
        """,
    ),
    (
        "05/project-cifar10",
        "look more than once",
        """
        padded = F.pad(x, [1, 1, 1, 1], mode="reflect")
        total = 0
        for start in (0, 1, 2):
            moved = padded[:, :, start : start + x.shape[2], start : start + x.shape[3]]
            total = total + model(moved) + model(moved.flip(3))
        return total / 6
        """,
    ),
]

WRONG += later.WRONG
RIGHT += later.RIGHT


def typed(number: str, title: str, code: str) -> Job:
    """The lesson with one region replaced by what a learner typed."""
    lesson = find_lesson(number)
    region = next(each for each in regions_of(lesson) if each.title == title)
    lines = lesson.path.read_text(encoding="utf-8").splitlines(keepends=True)
    code = textwrap.indent(textwrap.dedent(code).strip(), region.indent)
    lines[region.start + 1 : region.end] = [code + "\n"]
    return Job(lesson.path, text="".join(lines), draw=False)


def names(rows: list[tuple]) -> list[str]:
    return [f"{number} {title}" for number, title, *_ in rows]


@pytest.mark.parametrize("number, title, code, claim", WRONG, ids=names(WRONG))
def test_a_wrong_solution_fails_by_the_claim(
    engine: Engine, number: str, title: str, code: str, claim: str
) -> None:
    outcome = engine.result(typed(number, title, code))
    assert outcome.code == 1 and "Traceback" not in outcome.output, outcome
    failed = [each["id"] for each in outcome.result["claims"] if each["status"] == "failed"]
    assert claim in failed, outcome


@pytest.mark.parametrize("number, title, code", RIGHT, ids=names(RIGHT))
def test_a_right_solution_passes(engine: Engine, number: str, title: str, code: str) -> None:
    outcome = engine.result(typed(number, title, code))
    assert outcome.code == 0 and not outcome.violations, outcome
