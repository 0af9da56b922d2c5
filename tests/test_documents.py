"""The long texts in docs/: both languages say the same, links lead somewhere, numbers are right.

In the texts `<!-- let A = … -->` defines a name and `<!-- = … -->` computes the number, or the
numbers, printed last in front of it. A printed number may differ by half a unit of its last digit.
"""

import re
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats
from test_notes import exercises, links, sections, without_code

from common.course import curriculum
from common.lessons import ROOT

DOCS = ROOT / "docs"
ENDINGS = ("md", "zh.md")
PHASES = ("phase01", "phase02", "phase03", "phase04", "phase05", "phase06", "phase07", "phase08")
# a text on this phase may link its lessons until the phase stands above
NEXT = tuple({"phase09"} - set(PHASES))
# their terms stand in no lesson, so that CONCEPTS has a part for each
MATHEMATICS = ("LINEAR_ALGEBRA_DL", "PROBABILITY_FOR_DL")
NUMBER = r"[-−]?\d+/\d+|[-−]?(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?"
COMMENT = re.compile(r"<!-- (let |= )(.+?) -->")
EXERCISES = {"md": "Exercises", "zh.md": "练习"}
# a term of CONCEPTS, defined in one sentence, with the lesson or the section that explains it
TERM = re.compile(
    r"^- \*\*(.+?)\*\*(?: ([A-Za-z].*?))?[:：] ?(.+?) ?\[([^\]]+)\]\((\S+)\)$", re.MULTILINE
)

# every topic, and the lessons that its section links; a Chinese heading ends with the English name
SECTIONS = {
    "LINEAR_ALGEBRA_DL": {
        "Vectors": "1.1 3.1",
        "Inner products and norms": "1.2 2.1",
        "Span, independence and rank": "1.3 2.1",
        "Matrices as maps": "1.2 2.1",
        "Determinant": "2.1",
        "Trace": "1.2 2.2",
        "Projection and least squares": "1.3 2.1 2.5",
        "LU": "1.3",
        "QR": "1.3",
        "Inverses and conditioning": "1.3 1.5 2.5",
        "Eigenvalues": "2.2",
        "The spectral theorem": "2.2 2.3",
        "Positive definite matrices": "2.3 2.5",
        "Singular value decomposition": "1.3 2.2",
        "Eckart–Young": "2.2",
        "Principal component": "1.5 1.8 2.2",
        "Gradient and Jacobian|gradient and Jacobian": "2.3",
        "Hessian and Taylor": "2.3 2.5",
        "Lagrange and KKT": "2.7 3.6 3.9",
        "The chain rule and backpropagation": "2.4 3.3 3.5",
        "Layout conventions": "3.2 3.4 3.6 3.9",
        "Broadcasting, einsum and Kronecker": "1.2 3.2",
        "Where it appears": "3.4 3.6",
    },
    "PROBABILITY_FOR_DL": {
        "Events": "",
        "Random variables": "2.6",
        "Distributions": "1.1 1.6 2.6",
        "Joint and marginal distributions": "",
        "Expectation, variance and covariance": "1.7 1.0 2.6",
        "Conditional probability and Bayes": "2.6 3.0",
        "Independence": "1.1 1.5 3.7",
        "Naive Bayes": "",
        "Conditional expectation": "",
        "The multivariate Gaussian": "2.2",
        "Mixtures and latent variables": "1.8",
        "The law of large numbers": "2.6 3.3 3.9",
        "central limit theorem": "2.6",
        "Monte Carlo": "2.1 2.6",
        "Change of variables": "2.3 2.6",
        "MLE": "1.8 2.6 2.7 3.5",
        "MAP and weight decay": "3.6",
        "Entropy and code length": "2.7",
        "Cross-entropy and KL": "2.7 3.5 3.9",
        "Consistency and Fisher information": "3.3",
        "ELBO": "",
        "Mutual information": "2.7",
        "Bias and variance": "1.8 3.8",
        "Confidence intervals": "1.5 1.8 3.0 3.8",
        "Testing and comparing models": "1.5 1.8 3.0 3.8",
        "log-sum-exp": "1.2 3.5",
        "emperature": "3.5",
        "Sampling": "2.6 3.7 3.8",
        "Where it appears": "3.5 3.6 3.9",
    },
    "ATTENTION_IS_ALL_YOU_NEED": {
        "The claim": "6.7 6.8 7.1",
        "one page": "7.4 7.5 7.6",
        "Scaled dot-product attention": "6.8 7.1",
        "divide by the square root": "7.1 7.12",
        "Masks": "6.6 7.1 7.4 7.5",
        "Multi-head attention": "7.2",
        "feed-forward network": "7.4",
        "Residual connections and layer normalization": "4.7 5.7 7.4",
        "tied weights": "6.7 7.6",
        "Positional encoding": "7.1 7.3",
        "Counting the parameters": "7.6",
        "Counting the work": "7.2",
        "warm-up": "3.6 7.6",
        "label smoothing": "3.5 4.6 7.6",
        "averaged checkpoints": "6.7 7.10 7.0",
        "Results": "7.0",
        "ablations": "7.2 7.3 7.6",
        "misreadings": "6.8 7.1 7.2 7.5",
        "changed since": "7.3 7.7 7.9 7.10 7.11 7.12",
        "Where each part": "7.1 7.2 7.3 7.4 7.5 7.6 7.7 7.8 7.9 7.10 7.11 7.12 7.0 7.0b",
    },
}
INSIDE = {  # topics without a heading of their own
    "LINEAR_ALGEBRA_DL": (
        "Cauchy|柯西",
        "null space|零空间",
        "operator norm|算子范数",
        "complex eigenvalues|复特征值",
        "defective|亏损",
        "convex|凸",
        "Cholesky",
        "vector–Jacobian|向量–雅可比",
        "LoRA",
        "Attention|注意力",
        "Initialisation|初始化",
        "spectral norm|谱范数",
        "weight decay|权重衰减",
    ),
    "PROBABILITY_FOR_DL": (
        "Bernoulli",
        "binomial",
        "multinomial",
        "sum rule|求和法则",
        "total expectation|全期望公式",
        "total variance|全方差公式",
        "responsibilit|响应度",
        "Cram.r|克拉美",
        "Wilson",
        "power|功效",
        r"\\lambda = \\frac\{1\}\{n \\tau\^2\}",
        "categorical",
        "Gaussian",
        "uniform",
        "exponential",
        "Poisson",
        "MSE|平方误差",
        "Forward|正向",
        "Reverse|反向",
        "paired test|配对检验",
        "Inverse CDF",
        "Box–Muller",
        "Reparameterisation",
        "Gumbel-max",
        "code length|码长",
    ),
    "ATTENTION_IS_ALL_YOU_NEED": (
        "low rank|低秩",
        "block diagonal|块对角",
        "cross-attention|交叉注意力",
        "permutation equivariance|置换等变",
        "shift is a rotation|平移是旋转",
        "pre-norm",
        "post-norm",
        "63,082,496",
        "65 million|6500 万",
        "perplexity|困惑度",
        "length penalty|长度惩罚",
        "28.4",
        "41.8",
        "newstest2013",
        "over the keys|对键",
        "last\\*? encoder layer|编码器最后一层",
        "RoPE",
        "RMSNorm",
        "SwiGLU",
        "KV cache|KV 缓存",
        "GQA",
    ),
}
# a display in a fence, or a formula inside a line
FORMULA = re.compile(r"^```math\n(.+?)^```$|\$`([^`\n]+)`\$", re.DOTALL | re.MULTILINE)
DOCUMENTS = [(name, ending) for name in SECTIONS for ending in ENDINGS]
each_text = pytest.mark.parametrize("name, ending", DOCUMENTS)


def read(name: str, ending: str) -> str:
    return (DOCS / f"{name}.{ending}").read_text(encoding="utf-8")


def formulas(text: str) -> list[str]:
    """Sorted, for the languages may need another order; words in \\text{} may be translated."""
    found = ["".join(pair).strip() for pair in FORMULA.findall(text)]
    return sorted(re.sub(r"\\text\{[^}]*\}", r"\\text{}", formula) for formula in found)


def planned(phases: tuple[str, ...] = PHASES) -> dict[str, str]:
    """{"1.1": "phase01_data_science/01-numpy-basics", …} of these phases.

    A project is "1.0", the second one of a phase "6.0b".
    """
    entries = [entry.lesson for phase in curriculum.load(ROOT).phases for entry in phase.entries]
    found = {}
    for lesson in entries:
        if lesson.phase.startswith(phases):
            place = 0 if lesson.is_project else int(lesson.path.stem[:2])
            number = f"{int(lesson.phase[5:7])}.{place}"
            found[number + "b" if number in found else number] = lesson.key
    return found


def part(text: str, heading: str) -> str:
    """The section under a heading that contains one of the names."""
    found = [
        piece
        for piece in re.split(r"^## ", text, flags=re.M)[1:]
        if re.search(heading, piece.split("\n")[0])
    ]
    assert len(found) == 1, f"{len(found)} headings say “{heading}”"
    return found[0]


def names_for(name: str) -> dict:
    """What the expressions may use: NumPy; scipy where NumPy has nothing; a few short names."""

    def entropy(p):
        return -np.sum(p * np.log2(p))

    def divergence(p, q):
        return np.sum(p * np.log(p / q))

    space = vars(np) | {"v": lambda *x: np.array(x, dtype=float), "H": entropy, "KL": divergence}
    if name == "LINEAR_ALGEBRA_DL":
        space |= vars(np.linalg) | {
            "lstsq": lambda a, b: np.linalg.lstsq(a, b, rcond=None),
            "outer": np.outer,
        }
    else:
        space |= {
            "norm": scipy.stats.norm,
            "binom": scipy.stats.binom,
            "multinomial": scipy.stats.multinomial,
            "student": scipy.stats.t,
            "det": np.linalg.det,
            "ttest_rel": scipy.stats.ttest_rel,
            "ttest_ind": scipy.stats.ttest_ind,
            "logsumexp": scipy.special.logsumexp,
            "minimize_scalar": scipy.optimize.minimize_scalar,
            "quad": scipy.integrate.quad,
        }
    return space | {"softmax": scipy.special.softmax, "sqrtm": scipy.linalg.sqrtm}


def printed(text: str, count: int) -> list[str]:
    """The last `count` numbers of a text, without those in subscripts and exponents."""
    text = re.sub(r"<!--.*?-->|\|.*?\|\n", " ", text)
    text = re.sub(r"[_^](?:\{[^{}]*\}|\w)|\\[a-z]+", " ", text)
    text = re.sub(r"(?<=[\d)}A-Za-z])\s*[-−]\s*(?=\d)", " minus ", text)  # 3 - 1 holds no -1
    text = re.sub(r"[-−]\s+(?=\d)", "-", text)
    return re.findall(NUMBER, text)[-count:]


def is_close(shown: str, value: float) -> bool:
    """Within half a unit of the last digit that is shown."""
    plain = shown.replace(",", "").replace("−", "-")
    above, *below = plain.split("/")
    digits = len(plain.partition(".")[2])
    wanted = float(above) / float(below[0]) if below else float(above)
    exact = "." not in plain  # whole numbers and fractions are meant exactly
    return abs(wanted - value) <= (1e-5 if exact else 0.5 * 10**-digits + 1e-9)


def worked(name: str, ending: str) -> Iterator[tuple[str, list[str], list[float]]]:
    """(expression, numbers printed in front of it, numbers computed) for every mark, in order."""
    text, space = read(name, ending), names_for(name)
    for mark in COMMENT.finditer(text):
        if mark[1] == "let ":
            exec(mark[2], space)
            continue
        values = eval(mark[2], space)
        parts = values if isinstance(values, tuple) else (values,)
        flat = [float(x) for each in parts for x in np.real(np.ravel(each))]
        block = text[: mark.start()]
        yield mark[2], printed(block[-1500:], len(flat)), flat


@pytest.mark.parametrize("name", SECTIONS)
def test_both_languages_say_the_same(name: str) -> None:
    english, chinese = (read(name, ending) for ending in ENDINGS)
    assert len(sections(english)) == len(sections(chinese))
    assert formulas(english) == formulas(chinese)
    assert links(english, pictures=True) == links(chinese, pictures=True)
    assert links(english, pictures=False) == links(chinese, pictures=False)
    assert COMMENT.findall(english) == COMMENT.findall(chinese)


@pytest.mark.parametrize("name, ending", DOCUMENTS + [("CONCEPTS", ending) for ending in ENDINGS])
def test_links_and_pictures_exist(name: str, ending: str) -> None:
    targets = re.findall(r"\[[^\]]*\]\(([^)\s#]+)", without_code(read(name, ending)))
    awaited = {
        target
        for key in planned(NEXT).values()
        for target in (f"../{key}.py", f"{key}.md", f"{key}.zh.md")
    }
    missing = sorted(
        {target for target in targets if "://" not in target and not (DOCS / target).exists()}
        - awaited
    )
    assert not missing, f"links to files that are not there: {missing}"
    other = [
        target
        for target in targets
        if target.startswith("phase")
        and target.endswith(".md")
        and target.endswith(".zh.md") != (ending == "zh.md")
    ]
    assert not other, f"notes in the other language: {other}"


def test_pictures_are_small_and_used() -> None:
    used = {
        target for name, ending in DOCUMENTS for target in links(read(name, ending), pictures=True)
    }
    for path in (DOCS / "figures").iterdir():
        assert f"figures/{path.name}" in used, f"{path.name} stands in no text"
        assert path.stat().st_size <= 100_000, f"{path.name} is larger than 100 kB"


@each_text
def test_worked_numbers(name: str, ending: str) -> None:
    found = list(worked(name, ending))
    wrong = [
        f"{shown} stands before “{expression}”, which is {values}"
        for expression, shown, values in found
        if len(shown) != len(values) or not all(map(is_close, shown, values))
    ]
    assert not wrong, "\n".join(wrong)
    assert len(found) >= 40, f"only {len(found)} numbers are checked"


@each_text
def test_a_wrong_number_is_noticed(name: str, ending: str) -> None:
    """One more in the last digit of any number that is checked: none of them may pass."""
    for expression, shown, values in worked(name, ending):
        for digits, value in zip(shown, values):
            other = digits[:-1] + str((int(digits[-1]) + 1) % 10)
            assert not is_close(other, value), (
                f"{other} instead of {digits} passes for “{expression}”"
            )


@each_text
def test_every_topic_is_there_with_its_lessons(name: str, ending: str) -> None:
    text, keys = read(name, ending), planned(PHASES + NEXT)
    for heading, numbers in SECTIONS[name].items():
        section = part(text, heading)
        missing = [
            number for number in numbers.split() if f"](../{keys[number]}.py)" not in section
        ]
        assert not missing, f"“{heading}” does not link {missing}"
    for words in INSIDE[name]:
        assert re.search(words, text, re.IGNORECASE), f"nothing says “{words}”"


@each_text
def test_formulas_survive_markdown(name: str, ending: str) -> None:
    """Displays stand in a fence, the others between dollar and backtick: GitHub keeps both."""
    text = read(name, ending)
    rest = FORMULA.sub(" ", text)
    assert "$" not in rest, f"a formula in another form: {re.findall('.{0,30}[$].{0,30}', rest)}"
    broken = [formula for _, formula in FORMULA.findall(text) if re.search(r"\\[^A-Za-z]", formula)]
    assert not broken, f"use \\lbrace, \\Vert, spaces: {broken}"
    glued = re.findall(r"\w\$`[^`\n]+`\$|\$`[^`\n]+`\$[A-Za-z0-9]", text, re.ASCII)
    assert not glued, f"a letter beside the dollar sign keeps a formula from being one: {glued}"


@each_text
def test_ten_exercises_have_folded_answers(name: str, ending: str) -> None:
    text = read(name, ending)
    asked, answered = exercises(text, EXERCISES[ending])
    assert asked == answered >= 10
    tight = re.findall(r"</summary>(?!\n\n)|(?<!\n\n)</details>", text)
    assert not tight, "a blank line after </summary> and before </details>, or Markdown stays raw"


@pytest.mark.parametrize("name", SECTIONS)
def test_chinese_puts_no_space_beside_wide_punctuation(name: str) -> None:
    text = re.sub(r" *<!--.*?-->", "", read(name, "zh.md"))
    loose = re.findall(
        r".{0,12}(?:[，。；：、？！）】》”] +[^\s|]| +[，。；：、？！（《“）]).{0,12}", text
    )
    assert not loose, f"a space beside full-width punctuation: {loose}"


def terms(ending: str) -> list[tuple[str, str, str, str, str]]:
    """(term, its English name if it is translated, sentence, the link's text, its target)."""
    return TERM.findall(read("CONCEPTS", ending))


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def place(target: str) -> tuple[str, int]:
    """(file, which heading of it), the same for both languages; a lesson has no heading."""
    file, _, anchor = target.partition("#")
    if not anchor:
        return file, -1

    headings = re.findall(r"^##+ (.+)$", (DOCS / file).read_text(encoding="utf-8"), re.MULTILINE)
    anchors = [slug(heading) for heading in headings]
    assert anchor in anchors, f"{file} has no heading “{anchor}”"
    return file.replace(".zh.md", ".md"), anchors.index(anchor)


def test_every_concept_stands_once_in_both_languages() -> None:
    english, chinese = terms("md"), terms("zh.md")
    assert all(
        len(found) == read("CONCEPTS", ending).count("\n- ")
        for found, ending in ((english, "md"), (chinese, "zh.md"))
    ), "a line that is no “- **term**: sentence. [1.1](lesson)”"
    names = [term[0] for term in english]
    twice = {
        name for name in names if [each.casefold() for each in names].count(name.casefold()) > 1
    }
    assert not twice, f"these stand twice: {twice}"
    assert len({term[0] for term in chinese}) == len(chinese)

    # A name, such as TensorBoard, is not translated: the Chinese entry has it alone.
    assert names == [term[1] or term[0] for term in chinese]
    places = [[place(target) for *_, target in found] for found in (english, chinese)]
    assert places[0] == places[1]
    assert len(names) >= 120


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_concept_has_its_lesson_and_every_lesson_a_concept(ending: str) -> None:
    keys = planned()
    numbers = {f"../{key}.py": number for number, key in keys.items()}
    pieces = re.split(r"^## ", read("CONCEPTS", ending), flags=re.M)[1:]
    for phase, piece in zip(PHASES, pieces):
        assert {target[3:10] for *_, target in TERM.findall(piece)} == {phase}
    for name, piece in zip(MATHEMATICS, pieces[len(PHASES) :], strict=True):
        assert {target.split("#")[0] for *_, target in TERM.findall(piece)} == {f"{name}.{ending}"}

    linked = [target for *_, target in terms(ending) if "#" not in target]
    assert set(linked) == set(numbers)
    assert linked == sorted(linked, key=list(numbers).index), "not in the order of teaching"
    for term, _, sentence, shown, target in terms(ending):
        assert re.search(r"[.。]$", sentence), f"“{term}”: no sentence"
        if target in numbers:
            number = numbers[target]
            assert shown == number or shown[-1] + ".0" == number.removesuffix("b"), (
                f"“{term}”: {shown} is not {target}"
            )


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_concept_is_one_sentence_with_safe_formulas(ending: str) -> None:
    for term, _, sentence, *_ in terms(ending):
        rest = FORMULA.sub("x", sentence)
        assert "$" not in rest, f"“{term}”: a formula in another form"
        assert not re.search(r"[.。] ?\S", re.sub(r"\d\.\d|torch\.|\.grad", "", rest)), term
        assert "它" not in rest, f"“{term}”: say what “它” stands for"


def test_no_lesson_of_these_phases_is_forgotten() -> None:
    """Every lesson stands in one of the long texts or, if it is about tools, in CONCEPTS."""
    linked = {
        target
        for name in (*SECTIONS, "CONCEPTS")
        for target in links(read(name, "md"), pictures=False)
    }
    missing = [key for key in planned().values() if f"../{key}.py" not in linked]
    assert not missing, f"no text links {missing}"
