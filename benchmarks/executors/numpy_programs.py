"""Small scripts that use numpy as generated code does, each with asserts that hold."""

from __future__ import annotations

PROGRAMS = (
    """
import numpy as np

def normalise(rows):
    array = np.asarray(rows, dtype=float)
    return (array - array.mean(axis=0)) / array.std(axis=0)

out = normalise([[1, 2], [3, 4], [5, 9]])
assert np.allclose(out.mean(axis=0), 0)
assert np.allclose(out.std(axis=0), 1)
""",
    """
import numpy as np

def moving_average(values, width):
    return np.convolve(values, np.ones(width) / width, mode="valid")

assert np.allclose(moving_average([1, 2, 3, 4, 5], 3), [2, 3, 4])
assert moving_average(np.arange(100), 10).shape == (91,)
""",
    """
import numpy as np

def solve(matrix, right):
    return np.linalg.solve(np.array(matrix, float), np.array(right, float))

x = solve([[3, 1], [1, 2]], [9, 8])
assert np.allclose(x, [2, 3])
""",
    """
import numpy as np

def softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)

out = softmax(np.array([[1.0, 2.0, 3.0], [1000.0, 1000.0, 1000.0]]))
assert np.allclose(out.sum(axis=1), 1)
assert np.allclose(out[1], 1 / 3)
""",
    """
import numpy as np

def one_hot(labels, classes):
    return np.eye(classes, dtype=int)[labels]

assert one_hot([0, 2, 1], 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
""",
    """
import numpy as np

def distances(points):
    points = np.asarray(points, float)
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))

out = distances([[0, 0], [3, 4], [6, 8]])
assert np.allclose(out, [[0, 5, 10], [5, 0, 5], [10, 5, 0]])
""",
    """
import numpy as np

def rank(matrix):
    return int(np.linalg.matrix_rank(np.array(matrix)))

assert rank([[1, 2], [2, 4]]) == 1
assert rank(np.eye(5)) == 5
""",
    """
import numpy as np

def fit_line(x, y):
    slope, intercept = np.polyfit(x, y, 1)
    return slope, intercept

x = np.linspace(0, 10, 50)
slope, intercept = fit_line(x, 2 * x + 1)
assert abs(slope - 2) < 1e-9 and abs(intercept - 1) < 1e-9
""",
    """
import numpy as np

def life(board):
    padded = np.pad(board, 1)
    around = sum(
        padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx
    )
    return ((around == 3) | ((board == 1) & (around == 2))).astype(int)

blinker = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]])
assert life(blinker).tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
assert (life(life(blinker)) == blinker).all()
""",
    """
import numpy as np

def sieve(limit):
    prime = np.ones(limit + 1, dtype=bool)
    prime[:2] = False
    for number in range(2, int(limit**0.5) + 1):
        if prime[number]:
            prime[number * number :: number] = False
    return np.flatnonzero(prime)

assert sieve(30).tolist() == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
assert len(sieve(10_000)) == 1229
""",
    """
import numpy as np

def histogram(values, bins):
    counts, edges = np.histogram(values, bins=bins, range=(0, 1))
    return counts, edges

counts, edges = histogram([0.1, 0.2, 0.55, 0.9, 1.0], 2)
assert counts.tolist() == [2, 3]
assert edges.tolist() == [0.0, 0.5, 1.0]
""",
    """
import numpy as np

def power(matrix, exponent):
    return np.linalg.matrix_power(np.array(matrix, dtype=object), exponent)

fibonacci = power([[1, 1], [1, 0]], 90)[0][1]
assert fibonacci == 2880067194370816120
""",
    """
import numpy as np

def fill(values):
    values = np.array(values, float)
    known = ~np.isnan(values)
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])

assert fill([1, np.nan, 3, np.nan, np.nan, 6]).tolist() == [1, 2, 3, 4, 5, 6]
""",
    """
import numpy as np

def principal(points):
    centred = points - points.mean(axis=0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    return rows[0]

line = np.outer(np.arange(10.0), [3, 4])
assert np.allclose(np.abs(principal(line)), [0.6, 0.8])
""",
    """
import numpy as np

def top(values, count):
    values = np.asarray(values)
    return values[np.argsort(-values, kind="stable")[:count]].tolist()

assert top([3, 1, 4, 1, 5, 9, 2, 6], 3) == [9, 6, 5]
""",
    """
import numpy as np

def spectrum(signal, rate):
    power = np.abs(np.fft.rfft(signal)) ** 2
    return np.fft.rfftfreq(len(signal), 1 / rate)[power.argmax()]

time = np.arange(1000) / 1000
assert spectrum(np.sin(2 * np.pi * 50 * time), 1000) == 50
""",
    """
import numpy as np

def monte_carlo(count):
    points = np.random.default_rng(7).random((count, 2))
    return 4 * np.mean((points**2).sum(axis=1) < 1)

assert abs(monte_carlo(200_000) - np.pi) < 0.02
""",
    """
import numpy as np

def groups(keys, values):
    names, places = np.unique(keys, return_inverse=True)
    sums = np.bincount(places, weights=values)
    return dict(zip(names.tolist(), sums.tolist()))

assert groups(["a", "b", "a"], [1, 2, 3]) == {"a": 4.0, "b": 2.0}
""",
    """
import numpy as np

def transpose_blocks(matrix, size):
    rows, columns = matrix.shape
    blocks = matrix.reshape(rows // size, size, columns // size, size)
    return blocks.swapaxes(0, 2).reshape(columns, rows)

out = transpose_blocks(np.arange(16).reshape(4, 4), 2)
assert out[0].tolist() == [0, 1, 8, 9]
""",
    """
import numpy as np

def winner(board):
    board = np.asarray(board)
    sums = [*board.sum(axis=0), *board.sum(axis=1), board.trace(), np.fliplr(board).trace()]
    return 1 if 3 in sums else -1 if -3 in sums else 0

assert winner([[1, -1, 0], [-1, 1, 0], [0, 0, 1]]) == 1
assert winner(np.zeros((3, 3), int)) == 0
""",
    """
import numpy as np

def regress(features, targets, steps=500, rate=0.1):
    weights = np.zeros(features.shape[1])
    for _ in range(steps):
        weights -= rate * features.T @ (features @ weights - targets) / len(targets)
    return weights

rng = np.random.default_rng(0)
features = rng.normal(size=(200, 3))
weights = regress(features, features @ np.array([1.0, -2.0, 0.5]))
assert np.allclose(weights, [1.0, -2.0, 0.5], atol=1e-6)
""",
    """
import numpy as np

def dates(start, count):
    days = np.arange(np.datetime64(start), np.datetime64(start) + count)
    return [str(day) for day in days[np.is_busday(days)]]

assert dates("2024-02-28", 5) == ["2024-02-28", "2024-02-29", "2024-03-01"]
""",
    """
import numpy as np

def compress(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    return edges.reshape(-1, 2).tolist()

assert compress([0, 1, 1, 0, 1]) == [[1, 3], [4, 5]]
""",
    """
import numpy as np

def determinant(matrix):
    return round(float(np.linalg.det(np.array(matrix, float))), 6)

assert determinant([[2, 0, 1], [1, 3, 2], [1, 1, 1]]) == 0.0
assert determinant([[4, 3], [6, 3]]) == -6.0
""",
)
