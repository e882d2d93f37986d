"""Mutations of a file: the same random generator gives the same bytes."""

import re

LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
WORDS = (
    *(b"-1", b"0", b"1e400", b"nan", b"9" * 5000, b"null", b"true", b"[]", b"{}", b"''", b"\xc3\xa9", b"\xff", b"\0"),
    *(b"\x1b[2J", b"2020-13-45", b"&a [*a]", b"!!python/none", b"\xe2\x80\xa8", b"..", b"/", b"a" * 3000, b"\\ud800"),
)
MAX_BYTES = 1 << 20


def flip(data, random):
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def truncate(data, random):
    del data[random.randrange(len(data)) :]


def overwrite(data, random):
    start, stop = block(data, random)
    data[start:stop] = random.randbytes(stop - start)


def insert(data, random):
    start, stop = block(data, random)
    data[start:start] = random.randbytes(stop - start)


def duplicate(data, random):
    start, stop = block(data, random)
    place = random.randrange(len(data))
    data[place:place] = data[start:stop] * random.choice((1, 1, 300))


def delete(data, random):
    start, stop = block(data, random)
    del data[start:stop]


def write_length(data, random):
    """A field of 1, 2, 4 or 8 bytes says far too much or too little."""
    size = random.choice((1, 2, 4, 8))
    start = random.randrange(len(data))
    value = random.choice(LENGTHS) & ((1 << 8 * size) - 1)
    data[start : start + size] = value.to_bytes(size, random.choice(("little", "big")))


def replace_word(data, random):
    """A word or number of a text becomes something else."""
    start, stop = random.choice([match.span() for match in re.finditer(rb"[\w.+-]+", data)] or [(0, 0)])
    data[start:stop] = random.choice(WORDS)


MUTATIONS = (flip, flip, truncate, overwrite, insert, duplicate, delete, write_length, write_length, replace_word)


def block(data, random):
    start = random.randrange(len(data))
    return start, min(len(data), start + random.choice((1, 4, 16, 200, 4000)))


def mutate(content, random):
    """Return the bytes of a file after one to four mutations."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        if data:
            random.choice(MUTATIONS)(data, random)
        del data[MAX_BYTES:]
    return bytes(data)
