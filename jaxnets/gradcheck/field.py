"""Arithmetic modulo a prime, on NumPy arrays: no rounding, so equal is equal to the bit.

Two primes are used together. P is a safe prime: (P - 1) / 2 is the prime Q. The squares modulo P
are the powers of `OMEGA`, and there are Q of them. So `power_of_omega(w)` turns a sum modulo Q
into a product modulo P, which is what exp does with real numbers.

Source: Schwartz 1980 and Zippel 1979, tests by random values; Wu et al. 2024 (Mirage), section 5,
two primes for exp.
"""

import functools

import numpy as np

P = 2**50 - 161  # The largest safe prime below 2^50 of which 2 is a square.
Q = (P - 1) // 2
OMEGA = 4  # A square other than 1; Q is prime, so each one generates all squares.
MOST_TERMS = 2**11  # Of a sum of products of limbs that float64 holds exactly.

Residues = np.ndarray  # int64, from 0 up to p - 1.


def product(a: Residues, b: Residues | int, p: int = P) -> Residues:
    """Computes a b mod p for p up to 2^50.

    The quotient a b / p has at most 50 bits, so that of floats is wrong by 1 at most. What is left,
    a b - quotient p, is then between -p and 2p. In int64 it is right although both parts overflow.

    >>> int(product(np.array(P - 1), np.array(P - 1)))
    1
    """
    a, b = np.asarray(a), np.asarray(b, np.int64)
    quotient = (a.astype(np.float64) * b.astype(np.float64) / p).astype(np.int64)
    with np.errstate(over="ignore"):  # Only numbers without a shape would warn.
        rest = a * b - quotient * p
    rest += p * (rest < 0)
    return rest - p * (rest >= p)


def total(a: Residues, b: Residues, p: int = P) -> Residues:
    """Computes a + b mod p."""
    sums = a + b
    return sums - p * (sums >= p)


def negative(a: Residues, p: int = P) -> Residues:
    """Computes -a mod p."""
    return np.where(a == 0, 0, p - a)


def power(a: Residues, exponent: int, p: int = P) -> Residues:
    """Computes a^exponent mod p by repeated squaring; an exponent below 0 needs an inverse."""
    if exponent < 0:
        return power(inverse(a, p), -exponent, p)
    result = np.ones_like(a)
    while exponent:
        if exponent & 1:
            result = product(result, a, p)
        a = product(a, a, p)
        exponent >>= 1
    return result


def inverse(a: Residues, p: int = P) -> Residues:
    """Computes 1 / a mod p; 0 for 0.

    Of two numbers only the product is inverted: 1 / a = b / (a b). So many numbers take one inverse
    and three products each, where Fermat's a^(p - 2) takes some 90.
    """
    flat = np.ravel(a)
    if flat.size <= 1:
        return np.array([pow(int(x), -1, p) if x else 0 for x in flat], np.int64).reshape(a.shape)
    half = flat.size // 2
    first, second, odd = np.split(np.where(flat == 0, 1, flat), [half, 2 * half])
    both = inverse(product(first, second, p), p)
    inverses = [product(both, second, p), product(both, first, p), inverse(odd, p)]
    return np.where(a == 0, 0, np.concatenate(inverses).reshape(a.shape))


def is_square(a: Residues) -> np.ndarray:
    """Whether a residue modulo P has a root: Euler's criterion, a^Q = 1."""
    return power(a, Q) <= 1


def root(a: Residues) -> Residues:
    """The root modulo P of a square that is itself a square, a^((P + 1) / 4).

    P is 3 modulo 4, so -1 is no square and exactly one of the two roots is one. Products of these
    roots are roots of products, as they are for positive real numbers.
    """
    return power(a, (P + 1) // 4)


def sum_along(a: Residues, axes: tuple[int, ...], p: int = P) -> Residues:
    """Adds residues up along axes. Halves of 25 bits leave room for 2^38 terms."""
    low, high = (a & (2**25 - 1)).sum(axes) % p, (a >> 25).sum(axes) % p
    return total(np.asarray(low), product(np.asarray(high), 2**25, p), p)


def matrix_product(a: Residues, b: Residues, p: int = P) -> Residues:
    """Computes the matrix product of a [..., M, K] and b [..., K, N] mod p.

    Residues are cut into limbs, whose products float64 adds up exactly: two of 25 bits on the left,
    three of 17 bits on the right, so that 2^11 products stay below 2^53. Horner's scheme puts the
    sums together, the highest limbs first. It takes 0.8 of the time of a `product` for each sum.
    """
    if a.shape[-1] > MOST_TERMS:
        first = matrix_product(a[..., :MOST_TERMS], b[..., :MOST_TERMS, :], p)
        return total(first, matrix_product(a[..., MOST_TERMS:], b[..., MOST_TERMS:, :], p), p)
    right = np.concatenate(_limbs(b, 17), axis=-1)  # One product for all three.
    result = np.zeros((), np.int64)
    for left in _limbs(a, 25):
        high, middle, low = np.split((left @ right).astype(np.int64), 3, axis=-1)
        with_left = _shifted(_shifted(high, 17, p) + middle, 17, p) + low
        result = _shifted(result, 25, p) + with_left
    result = _shifted(result, 0, p)
    return result - p * (result >= p)


def _limbs(a: Residues, bits: int) -> list[np.ndarray]:
    """The limbs of so many bits, the highest first."""
    places = range(0, P.bit_length(), bits)
    return [((a >> place) & (2**bits - 1)).astype(np.float64) for place in reversed(places)]


def _shifted(a: np.ndarray, bits: int, p: int) -> np.ndarray:
    """Computes a 2^bits mod p, plus perhaps p, for a below 2^55 and at most 25 bits.

    p is 2^n - c with a small c, so 2^n is c mod p: what stands above bit n is multiplied by c.
    """
    n = p.bit_length()
    c = 2**n - p
    low = (a & (2**n - 1)) + c * (a >> n)
    return ((low & (2 ** (n - bits) - 1)) << bits) + c * (low >> (n - bits))


@functools.cache
def _powers_of_omega() -> np.ndarray:
    """OMEGA^(k 2^(10 place)) mod P, [place, k]."""
    rows = [pow(OMEGA, 2 ** (10 * place), P) for place in range(5)]
    table = [[1] for _ in rows]
    for row, base in zip(table, rows, strict=True):
        while len(row) < 1024:
            row.append(row[-1] * base % P)
    return np.array(table)


def power_of_omega(w: Residues) -> Residues:
    """OMEGA^w mod P for w modulo Q: the field's exp."""
    result = np.ones_like(w)
    for place, powers in enumerate(_powers_of_omega()):
        result = product(result, powers[(w >> 10 * place) & 1023])
    return result


def scrambled(a: Residues, p: int, salt: int) -> Residues:
    """A fixed random function of a residue, for what has no rational form, such as log.

    Source: Vigna 2015, SplitMix64.
    """
    with np.errstate(over="ignore"):
        z = np.atleast_1d(a).astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z % np.uint64(p)).astype(np.int64).reshape(np.shape(a))
