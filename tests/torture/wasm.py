# SPDX-License-Identifier: Apache-2.0
"""Makes components that are wrong: from nothing, or out of one that is right, by putting a function or a section into it."""

MODULE = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"
CUSTOM, CORE_MODULE, CORE_INSTANCE, INSTANCE, IMPORT, EXPORT = 0, 1, 2, 5, 10, 11
TYPES, IMPORTS, FUNCTIONS, START, CODE, DATA_COUNT, TABLES, MEMORIES = 1, 2, 3, 8, 10, 12, 4, 5
END = b"\x0b"


def leb(number):
    """LEB128, unsigned."""
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def section(kind, content):
    """A section of a module or component."""
    return bytes([kind]) + leb(len(content)) + content


def text(string):
    """A string with its length."""
    encoded = string.encode()
    return leb(len(encoded)) + encoded


def custom(name, content):
    """A custom section."""
    return section(CUSTOM, text(name) + content)


def read_leb(data, at):
    """A number, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def sections(data):
    """Kind and content of each section."""
    at = 8
    while at < len(data):
        kind = data[at]
        length, at = read_leb(data, at + 1)
        yield kind, data[at : at + length]
        at += length


def component(items, interfaces=("lifecycle", "adapter"), imports=()):
    """A component with these sections that exports interfaces by name only, with nothing in them."""
    whole = COMPONENT
    if imports:
        # A type of an instance without exports, and each import of that type.
        whole += section(7, leb(1) + b"\x42\0")
        whole += section(IMPORT, leb(len(imports)) + b"".join(b"\0" + text(name) + b"\x05\0" for name in imports))
    whole += b"".join(items)
    if interfaces:
        nothing = len(imports)
        whole += section(INSTANCE, leb(1) + b"\x01\0")
        names = [b"\0" + text(f"penstock:plugin/{name}@0.1.0") + b"\x05" + leb(nothing) + b"\0" for name in interfaces]
        whole += section(EXPORT, leb(len(names)) + b"".join(names))
    return whole


def module(bodies=(), more=()):
    """A core module with functions of these bodies, and sections more by their kind."""
    parts = dict(more)
    if bodies:
        parts[TYPES] = leb(1) + b"\x60\0\0"
        parts[FUNCTIONS] = leb(len(bodies)) + b"\0" * len(bodies)
        parts[CODE] = leb(len(bodies)) + b"".join(leb(len(body)) + body for body in bodies)
    return MODULE + b"".join(section(kind, parts[kind]) for kind in sorted(parts))


def nested(core):
    """A core module as a section of a component."""
    return section(CORE_MODULE, core)


def with_start(good, bodies):
    """A component whose largest module has these functions more, and begins by calling the first of them."""
    parts = list(sections(good))
    largest = max((part for part in parts if part[0] == CORE_MODULE), key=lambda part: len(part[1]))
    changed = _started(largest[1], bodies)
    return COMPONENT + b"".join(
        section(kind, changed if (kind, content) == largest else content) for kind, content in parts
    )


def _started(core, bodies):
    parts = dict(item for item in sections(core) if item[0] != CUSTOM)
    imported = _imported_functions(parts.get(IMPORTS, b"\0"))
    types, at = read_leb(parts[TYPES], 0)
    parts[TYPES] = leb(types + 1) + parts[TYPES][at:] + b"\x60\0\0"
    functions, at = read_leb(parts[FUNCTIONS], 0)
    parts[FUNCTIONS] = leb(functions + len(bodies)) + parts[FUNCTIONS][at:] + leb(types) * len(bodies)
    _, at = read_leb(parts[CODE], 0)
    added = b"".join(leb(len(body)) + body for body in bodies)
    parts[CODE] = leb(functions + len(bodies)) + parts[CODE][at:] + added
    parts[START] = leb(imported + functions)
    # Data counts stand before the code.
    order = sorted(parts, key=lambda kind: 9.5 if kind == DATA_COUNT else kind)
    customs = b"".join(section(*item) for item in sections(core) if item[0] == CUSTOM)
    return MODULE + b"".join(section(kind, parts[kind]) for kind in order) + customs


def _imported_functions(content):
    count, at = read_leb(content, 0)
    functions = 0
    for _ in range(count):
        for _name in range(2):
            length, at = read_leb(content, at)
            at += length
        kind, at = content[at], at + 1
        if kind == 0:
            functions += 1
            _, at = read_leb(content, at)
        elif kind == 3:
            at += 2
        else:
            at += kind == 1
            flags, at = read_leb(content, at)
            for _limit in range(1 + (flags & 1)):
                _, at = read_leb(content, at)
    return functions


def body(code, local_groups=b"\0"):
    """The body of a function."""
    return local_groups + code + END
