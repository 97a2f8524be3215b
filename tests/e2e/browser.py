"""A page in headless Chromium: what it draws and how wide it gets."""

import html
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import zlib

import numpy as np

NAMES = ["chromium", "chromium-browser", "google-chrome"]
WIDE = (1280, 800)
PHONE = (390, 844)


def chromium(page, size, *options):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise AssertionError(f"none of {NAMES} is there: tools/setup.sh browser installs one")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
             f"--window-size={size[0]},{size[1]}", *options, pathlib.Path(page).resolve().as_uri()],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout


def screenshot(page, size, output):
    """The page's first screen: [height, width, 3], 0 to 255. `output` is the PNG file."""
    chromium(page, size, f"--screenshot={output}")
    return decode_png(pathlib.Path(output).read_bytes())


def content_width(page, size):
    """How wide the page is on a screen of that size."""
    # In a frame: a window has a least width.
    with tempfile.NamedTemporaryFile("w", suffix=".html") as frame:
        frame.write(
            f'<iframe width="{size[0]}" height="{size[1]}" style="border: 0" srcdoc="{html.escape(pathlib.Path(page).read_text())}"'
            ' onload="document.title = `width ${this.contentDocument.documentElement.scrollWidth}`"></iframe>')
        frame.flush()
        return int(re.search(r"<title>width (\d+)</title>", chromium(frame.name, size, "--dump-dom"))[1])


def decode_png(data):
    """An 8-bit RGB or RGBA image without interlacing, as Chromium writes."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        chunks.append((kind, data[at + 8:at + 8 + length]))
        at += length + 12
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    channels = {2: 3, 6: 4}[color]
    assert (depth, interlace) == (8, 0)
    raw = np.frombuffer(zlib.decompress(b"".join(d for kind, d in chunks if kind == b"IDAT")), np.uint8)
    rows = raw.reshape(height, 1 + width * channels)
    image = np.zeros((height, width, channels), np.uint8)
    above = np.zeros((width, channels), np.int32)
    for y in range(height):
        line = rows[y, 1:].reshape(width, channels).astype(np.int32)
        if rows[y, 0] == 1:
            line = np.cumsum(line, 0)
        elif rows[y, 0] == 2:
            line = line + above
        elif rows[y, 0] in (3, 4):
            line = unfilter(line, above, average=rows[y, 0] == 3)
        above = line & 255
        image[y] = above
    return image[..., :3]


def unfilter(line, above, average):
    left = corner = [0] * line.shape[1]
    done = []
    for values, up in zip(line.tolist(), above.tolist()):
        pixel = []
        for value, a, b, c in zip(values, left, up, corner):
            if average:
                predicted = (a + b) // 2
            else:
                distances = [abs(b - c), abs(a - c), abs(a + b - 2 * c)]
                predicted = (a, b, c)[distances.index(min(distances))]
            pixel.append((value + predicted) & 255)
        done.append(pixel)
        left, corner = pixel, up
    return np.array(done, np.int32)
