import pytest

from raphson.race.questions import Question, of_file, questions
from raphson.smooth.problem import Minimize

HEAD = "import jax.numpy as jnp\nimport raphson as rp\nf = lambda y, a: jnp.sum(y**2)\n"


def written(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(body)
    return path


@pytest.mark.parametrize(
    "body, names",
    [
        ("problem = rp.Minimize(f, jnp.ones(2))", ["mine"]),
        ("def problem():\n    return rp.Minimize(f, jnp.ones(2))", ["mine"]),
        ("a, b = rp.Minimize(f, jnp.ones(2)), rp.Minimize(f, jnp.ones(3))", ["mine.a", "mine.b"]),
    ],
)
def test_problems_of_a_file(tmp_path, body, names):
    path = written(tmp_path, HEAD + body)
    found = questions([str(path)])
    assert [question.name for question in found] == names
    path.unlink()  # a worker elsewhere has the text only
    assert all(type(question.load()) is Minimize for question in found)


def test_a_file_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_mine.py").write_text(HEAD)
    path = written(tmp_path, "from beside_mine import *\nproblem = rp.Minimize(f, jnp.ones(2))")
    assert of_file(path)[0].load().y0.shape == (2,)


@pytest.mark.parametrize(
    "body, sentence",
    [
        ("x = 1", r"must define a Raphson problem in a variable `problem`"),
        ("problem = 3", r"its `problem` is int"),
        ("\n\nx = 1 / 0", r"mine.py, line 3: ZeroDivisionError: division by zero\.$"),
        ("x = (", r"mine.py, line 1: SyntaxError: '\(' was never closed\.$"),
        (HEAD + "problem = rp.Minimize(f, 'a')", r"line 4: ValueError: `y0` must be"),
    ],
)
def test_a_file_without_a_problem_is_refused(tmp_path, body, sentence):
    with pytest.raises(ValueError, match=sentence):
        of_file(written(tmp_path, body))


def test_names_and_sets():
    assert questions(["quadratic", "quadratic"]) == [Question("quadratic")]
    assert len(questions(["composite", "quadratic"])) == 3
    assert len(questions(["quadratic"], ["composite"])) == 3
    assert questions(["cutest/MISRA1ALS:1"])[0].load().y0.size == 2
    with pytest.raises(ValueError, match="did you mean main"):
        questions([], ["mian"])
    with pytest.raises(ValueError, match="'quadratc'; did you mean quadratic"):
        questions(["quadratc"])
    with pytest.raises(ValueError, match="cannot read the file nowhere.py: No such file"):
        questions(["nowhere.py"])


def test_an_edited_file_is_another_problem(tmp_path):
    first = of_file(written(tmp_path, HEAD + "problem = rp.Minimize(f, jnp.ones(2))"))[0]
    second = of_file(written(tmp_path, HEAD + "problem = rp.Minimize(f, jnp.zeros(2))"))[0]
    assert (first.name, first.fingerprint) != (second.name, second.fingerprint)
