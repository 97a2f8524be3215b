"""A precompiled_charsmap as sentencepiece writes it: a darts-clone double-array trie over what is replaced."""

import struct
import unicodedata


def nfkc_rules(limit=0x30000):
    """Like sentencepiece's nmt_nfkc, but smaller: compatibility forms, compositions, spaces and dropped controls."""
    rules = {}
    for c in [*range(0x80, 0xAC00), *range(0xF900, limit)]:
        text = chr(c)
        form = unicodedata.normalize("NFKC", text)
        if form != text:
            rules[text] = form
        decomposed = unicodedata.normalize("NFD", text)
        if decomposed != text and unicodedata.normalize("NFC", decomposed) == text:
            rules[decomposed] = form
    rules.update({c: " " for c in "\t\n\r\u1680\u200b\u200e\u2028\u2581\ufeff\ufffd"})
    rules.update({chr(c): "" for c in [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F]})
    return {key: value for key, value in rules.items() if "\x00" not in key}


def compile_charsmap(rules):
    replacements = bytearray(b"\0")
    places = {}
    trie = {}
    for key, value in rules.items():
        if value not in places:
            places[value] = len(replacements) if value else 0
            replacements += value.encode() + b"\0" if value else b""
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = places[value]
    units = [0] * 1024
    used = [False] * 1024
    used[0] = True
    start = 1

    def grow(size):
        while len(units) < size:
            units.extend([0] * 1024)
            used.extend([False] * 1024)

    def encode_offset(offset):
        assert offset < 1 << 21 or offset & 0xFF == 0
        return offset << 10 if offset < 1 << 21 else (offset << 2) | (1 << 9)

    pending = [(trie, 0)]
    while pending:
        node, at = pending.pop()
        labels = sorted(node)
        base = start
        while True:
            # Children lie at base ^ label; the parent keeps base ^ at.
            grow((base | 0xFF) + 1)
            if all(not used[base ^ label] for label in labels) and (base ^ at) < 1 << 21:
                break
            base += 1
        units[at] |= encode_offset(at ^ base)
        if 0 in node:
            units[at] |= 1 << 8
        for label in labels:
            used[base ^ label] = True
            if label == 0:
                units[base] = node[0] | 1 << 31
            else:
                units[base ^ label] = label
                pending.append((node[label], base ^ label))
        while used[start]:
            start += 1
            grow(start + 1)
    blob = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(blob)) + blob + bytes(replacements)
