"""`shardpipe simulate`: orders and lists against torch.distributed.pipelining's own, numbers, files, pages, errors."""

import csv
import html.parser
import io
import json
import os
import pathlib
import random
import tempfile
import time
import types
import unittest

import torch.distributed.pipelining.schedules as torchs

import browser
import shardpipe_cli as cli


def simulate(*arguments):
    _, out, _, _ = cli.run("simulate", "--json", "--schedule", *arguments, check=0)
    return json.loads(out)


def compute_only(actions):
    return [[a for a in row if not any(x in a for x in ("SEND", "RECV", "REDUCE"))] for row in actions]


def lists_of(order):
    return [[str(action) for action in order[rank] if action is not None] for rank in sorted(order)]


def torch_order(kind, p, v, m):
    """torch's compute lists without its process groups: the functions that make them need only these numbers."""
    fields = {"pp_group_size": p, "n_local_stages": v, "_n_microbatches": m, "num_stages": p * v, "_num_stages": p * v,
              "_stages": range(v), "microbatches_per_round": m // max(1, m // p)}
    schedule = types.SimpleNamespace(**fields)
    if kind in (torchs.Schedule1F1B, torchs.ScheduleGPipe):
        rows = lists_of(kind._get_pipeline_order(schedule))
        return [[action for action in row if "REDUCE" not in action] for row in rows]
    return lists_of({rank: kind._calculate_single_rank_operations(schedule, rank) for rank in range(p)})


def torch_lists(order, rank_of_stage, num_stages, m):
    """torch's lowering of compute lists, as _prepare_schedule_with_comms does it."""
    actions = {rank: [torchs._Action.from_str(a) for a in row] for rank, row in enumerate(order)}
    for rank in actions:
        actions[rank] = torchs._add_reduce_grad(torchs._add_unshard_reshard(actions[rank]), m)
    return torchs._add_send_recv(actions, lambda s: rank_of_stage[s], num_stages)


def ranks_of(order):
    owners = {int(a.rstrip("0123456789").rstrip("FBIW")): rank for rank, row in enumerate(order) for a in row}
    return [owners[stage] for stage in range(len(owners))]


class Page(html.parser.HTMLParser):
    """What a page would load."""

    def __init__(self):
        super().__init__()
        self.loads = []
        self.svgs = 0

    def handle_starttag(self, tag, attributes):
        self.svgs += tag == "svg"
        if tag in ("link", "img", "iframe", "script", "object", "embed", "audio", "video", "base"):
            self.loads.append(tag)
        self.loads += [name for name, _ in attributes if name in ("src", "href", "srcset", "xlink:href", "action")]


class Simulate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.temporary.name)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.write_text(text)
        return path

    def test_report(self):
        report = simulate("1f1b", "--pp", 2, "--chunks", 2)
        self.assertEqual(
            report["actions"],
            [["0F0", "0SEND_F0", "0F1", "0SEND_F1", "0RECV_B0", "0B0", "0RECV_B1", "0B1", "0REDUCE_GRAD"],
             ["1RECV_F0", "1F0", "1B0", "1SEND_B0", "1RECV_F1", "1F1", "1B1", "1SEND_B1", "1REDUCE_GRAD"]])
        self.assertEqual(report["makespan"], 9)
        self.assertEqual(report["closed_form_makespan"], 9)
        self.assertAlmostEqual(report["bubble_fraction"], 1 / 3)
        self.assertEqual(report["peak_activations"], [2, 1])
        self.assertEqual([report[key] for key in ("schedule", "pp", "virtual", "chunks")], ["1f1b", 2, 1, 2])

    def test_costs(self):
        report = simulate("fill-drain", "--pp", 3, "--chunks", 4, "--costs", "2,3,1,0.5")
        self.assertEqual(report["makespan"], (4 + 2) * 6 + 2 * 2 * 0.5)
        self.assertIsNone(report["closed_form_makespan"])

    def test_virtual_stages(self):
        for name in ("interleaved", "looped-bfs", "zb-v"):
            self.assertEqual(simulate(name, "--pp", 2, "--chunks", 4)["virtual"], 2)
        self.assertEqual(simulate("interleaved", "--pp", 2, "--chunks", 4, "--virtual", 3)["virtual"], 3)
        self.assertEqual(ranks_of(compute_only(simulate("zb-v", "--pp", 3, "--chunks", 4)["actions"])), [0, 1, 2, 2, 1, 0])

    def test_text(self):
        _, out, _, _ = cli.run("simulate", "--schedule", "1f1b", "--pp", 2, "--chunks", 2, check=0)
        self.assertEqual(
            out.splitlines(),
            ["1f1b: 2 ranks, 2 microbatches", "costs: F 1, I 1, W 1, message 0", "",
             "time      0   1   2   3   4   5   6   7   8",
             "rank 0    0F0 0F1 .   .   0B0 --  .   0B1 --",
             "rank 1    .   1F0 1B0 --  1F1 1B1 --  .   .", "",
             "makespan          9", "bubble            33.33 %", "closed form       9, bubble 33.33 %",
             "peak activations  2 1"])

    # Ours differ on purpose from torch's: looped-bfs adds gradients in microbatch order where torch goes backwards, and
    # interleaved with as many microbatches as ranks runs all forwards first.
    def test_orders_are_torchs(self):
        compared = 0
        for p in (1, 2, 4):
            for m in (p, 2 * p + 1, 4 * p):
                cases = [("fill-drain", torchs.ScheduleGPipe, 1), ("1f1b", torchs.Schedule1F1B, 1),
                         ("zb-h1", torchs.ScheduleInterleavedZeroBubble, 1), ("zb-v", torchs.ScheduleZBVZeroBubble, 2)]
                if m % p == 0 and m > p:
                    cases += [("interleaved", torchs.ScheduleInterleaved1F1B, v) for v in (2, 3)]
                for name, kind, v in cases:
                    with self.subTest(schedule=name, p=p, v=v, m=m):
                        ours = compute_only(simulate(name, "--pp", p, "--chunks", m, "--virtual", v)["actions"])
                        theirs = torch_order(kind, p, v, m)
                        if name == "1f1b":  # torch's list of the last rank starts with microbatch 1
                            ours, theirs = ours[:-1], theirs[:-1]
                        self.assertEqual(ours, theirs)
                        compared += 1
                with self.subTest(schedule="looped-bfs", p=p, m=m):
                    ours = compute_only(simulate("looped-bfs", "--pp", p, "--chunks", m)["actions"])
                    theirs = torch_order(torchs.ScheduleLoopedBFS, p, 2, m)
                    self.assertEqual([row[:2 * m] for row in ours], [row[:2 * m] for row in theirs])
                    self.assertEqual(
                        ours, [row[:2 * m] + row[3 * m - 1:2 * m - 1:-1] + row[:3 * m - 1:-1] for row in theirs])
        self.assertGreater(compared, 40)

    def test_lists_run_in_torch(self):
        for name, p, m in [("1f1b", 4, 6), ("interleaved", 2, 4), ("zb-h1", 4, 8), ("zb-v", 4, 8), ("looped-bfs", 2, 3)]:
            with self.subTest(schedule=name):
                lists = simulate(name, "--pp", p, "--chunks", m)["actions"]
                owners = ranks_of(compute_only(lists))
                order = {rank: [torchs._Action.from_str(a) for a in row if "REDUCE" not in a] for rank, row in enumerate(lists)}
                torchs._simulate_comms_compute(order, lambda s: owners[s], len(owners))  # raises where it deadlocks

    def test_torchs_files(self):
        for kind, p, v, m in [(torchs.ScheduleGPipe, 3, 1, 4),
                              (torchs.ScheduleInterleaved1F1B, 2, 2, 4), (torchs.ScheduleInterleavedZeroBubble, 2, 2, 4),
                              (torchs.ScheduleZBVZeroBubble, 3, 2, 7), (torchs.ScheduleInterleaved1F1B, 4, 2, 4)]:
            with self.subTest(schedule=kind.__name__):
                order = torch_order(kind, p, v, m)
                lists = torch_lists(order, ranks_of(order), p * v, m)
                files = []
                for name, rows in [("compute.csv", order), ("comms.csv", [lists[rank] for rank in range(p)])]:
                    text = io.StringIO(newline="")
                    csv.writer(text).writerows(rows)
                    files.append(self.root / name)
                    files[-1].write_text(text.getvalue(), newline="")
                compute, comms = [simulate(file) for file in files]
                for report in (compute, comms):
                    self.assertEqual(compute_only(report["actions"]), order)
                    self.assertEqual([report["pp"], report["virtual"], report["chunks"]], [p, v, m])
                # A receive waits where it is listed, and torch lists it when its message is sent.
                self.assertGreaterEqual(comms["makespan"], compute["makespan"])
                self.assertIn("0REDUCE_GRAD", comms["actions"][0])
                # Beside what two stages of a rank tell each other, the messages are torch's.
                owners = ranks_of(order)
                local = {f"{s}{a}" for s in range(p * v - 1) if owners[s] == owners[s + 1] for a in ("SEND_F", "RECV_B")}
                local |= {f"{s + 1}{a}" for s in range(p * v - 1) if owners[s] == owners[s + 1] for a in ("RECV_F", "SEND_B")}
                for ours, theirs in zip(compute["actions"], [lists[rank] for rank in range(p)]):
                    self.assertEqual(
                        sorted(a for a in ours if a.rstrip("0123456789") not in local),
                        sorted(str(a) for a in theirs if "SHARD" not in str(a)))

    def test_a_file_of_our_own(self):
        path = self.write("own.csv", "0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n")
        report = simulate(path, "--pp", 2, "--chunks", 2, "--virtual", 1)
        self.assertEqual(report["makespan"], 9)
        self.assertIsNone(report["closed_form_makespan"])
        forwards = simulate(self.write("forwards.csv", "0F0,0F1\n1F0,1F1\n"))
        self.assertEqual([forwards["makespan"], forwards["peak_activations"]], [3, [1, 1]])

    def test_random_schedules(self):
        draw = random.Random(5)
        for _ in range(20 * cli.SCALE):
            p, m = draw.randint(1, 6), draw.randint(1, 12)
            f, i, w = (draw.randint(1, 5) for _ in range(3))
            name = draw.choice(["fill-drain", "1f1b", "zb-h1"])
            report = simulate(name, "--pp", p, "--chunks", m, "--costs", f"{f},{i},{w},0")
            if name != "zb-h1":
                self.assertEqual(report["makespan"], (m + p - 1) * (f + i + w))
            elif m >= p:
                self.assertEqual(report["makespan"], m * (f + i + w) + (p - 1) * (f + i - min(f, i, w)))
            busy = p * m * (f + i + w)
            self.assertAlmostEqual(report["bubble_fraction"], 1 - busy / (p * report["makespan"]))

    def test_a_large_schedule(self):
        start = time.monotonic()
        report = simulate("1f1b", "--pp", 512, "--chunks", 2048)
        self.assertEqual(report["makespan"], (2048 + 511) * 3)
        self.assertLess(time.monotonic() - start, 60)

    def test_page(self):
        path = self.root / "page.html"
        for name, p, m in [("zb-v", 4, 12), ("1f1b", 3, 5)]:
            _, out, _, _ = cli.run("simulate", "--schedule", name, "--pp", p, "--chunks", m, "--html", path, check=0)
            self.assertIn("makespan", out)
            text = path.read_text()
            page = Page()
            page.feed(text)
            self.assertEqual(page.loads, [])
            self.assertEqual(page.svgs, 2)
            self.assertNotRegex(text, r"https?:|url\(|@import")
            for size in (browser.WIDE, browser.PHONE):
                with self.subTest(schedule=name, size=size):
                    image = browser.screenshot(path, size, self.root / "page.png")
                    self.assertEqual(image.shape[:2], size[::-1])
                    self.assertGreater(len({tuple(color) for color in image[::3, ::3].reshape(-1, 3).tolist()}), 20)
                    blue = (abs(image.astype(int) - [0x2F, 0x6D, 0xB3]).sum(-1) < 12).mean()
                    self.assertGreater(blue, 0.004)  # forwards are drawn
                    self.assertEqual(browser.content_width(path, size), size[0])  # nothing sticks out
        self.assertEqual([file.name for file in self.root.glob("page.html*")], ["page.html"])

    def test_errors(self):
        def refuse(status, pattern, *arguments):
            got, out, err, _ = cli.run("simulate", *arguments)
            self.assertEqual((got, out), (status, ""), err)
            self.assertEqual(len(err.splitlines()), 1)
            self.assertRegex(err, pattern)

        def numbers(name, p, m, *more):
            return ["--schedule", name, "--pp", p, "--chunks", m, *more]

        refuse(2, "--schedule is required")
        refuse(2, r'no schedule "2f2b"; hint: one of fill-drain, 1f1b', *numbers("2f2b", 2, 2))
        refuse(2, "--pp is missing", "--schedule", "1f1b", "--chunks", 2)
        refuse(2, "--chunks is missing", "--schedule", "1f1b", "--pp", 2)
        refuse(2, "--pp", *numbers("1f1b", 0, 2))
        refuse(2, "--chunks", *numbers("1f1b", 2, -1))
        refuse(2, "--pp", *numbers("1f1b", 99999999999, 2))
        refuse(2, "at most 8388608", *numbers("1f1b", 100000, 100000))
        refuse(2, "one stage a rank", *numbers("1f1b", 2, 2, "--virtual", 2))
        refuse(2, "two stages a rank", *numbers("zb-v", 2, 2, "--virtual", 3))
        refuse(2, "multiple of its 4 ranks, not 6; hint: 8", *numbers("interleaved", 4, 6))
        refuse(2, "--costs has 3 numbers, must have 4", *numbers("1f1b", 2, 2, "--costs", "1,1,1"))
        refuse(2, "--costs", *numbers("1f1b", 2, 2, "--costs", "1,x,1,0"))
        refuse(2, "a cost is -1, must be from 0", *numbers("1f1b", 2, 2, "--costs", "1,-1,1,0"))
        refuse(2, "a cost is nan", *numbers("1f1b", 2, 2, "--costs", "1,nan,1,0"))
        refuse(2, "costs of F, I and W are 0", *numbers("1f1b", 2, 2, "--costs", "0,0,0,1"))
        refuse(1, "nowhere", *numbers("1f1b", 2, 2, "--html", self.root / "nowhere" / "page.html"))
        good = self.write("good.csv", "0F0,0B0\n1F0,1B0\n")
        refuse(2, r"--pp is 3, but .*good.csv has 2 ranks; hint: leave --pp out", "--schedule", good, "--pp", 3)
        refuse(2, r"--chunks is 2, but .*good.csv has 1 microbatches", "--schedule", good, "--chunks", 2)
        refuse(2, r"--virtual is 2, but .*good.csv has 1 stages on a rank", "--schedule", good, "--virtual", 2)
        refuse(3, "missing.csv", "--schedule", self.root / "missing.csv")
        for name, text, pattern in [
                ("empty", "", "has no action"),
                ("word", "0F0,hello\n", r'"hello" is not an action .*word.csv, line 1'),
                ("binary", "\x00\xff\x01", "is not an action"),
                ("twice", "0F0,0F0,0B0\n", "rank 0, position 1, action 0F0: the forward ran before"),
                ("two", "0F0,0B0\n0F1,0B1\n", "stage 0 is on rank 0 and on rank 1"),
                ("gap", "0F0\n2F0\n", "stage 1 has no action"),
                ("missing-b", "0F0,0F1,0B0\n", "has no 0B1"),
                ("torchs-looped", "0F0,0F1,0B1,0B0\n", "sums would change their order.*hint: list B, or W, of a stage in microbatch order"),
                ("stuck", "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", r"deadlocks: rank 0 waits at position 2, 0RECV_B0, for 1SEND_B0 of rank 1"),
                ("half", "0F0,0SEND_F0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "its gradients were not received.*0RECV_B0 before it"),
        ]:
            refuse(3, pattern, "--schedule", self.write(name + ".csv", text))
        if os.path.exists("/dev/full"):
            self.assertEqual(cli.execute("sh", "-c", f"{cli.PROGRAM} simulate --schedule 1f1b --pp 2 --chunks 2 > /dev/full")[0], 1)


if __name__ == "__main__":
    unittest.main()
