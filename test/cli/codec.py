# SPDX-License-Identifier: Apache-2.0
"""weft codec: models and texts in, ratios and perplexities out, without a node."""
import json
import os
import random
import resource
import struct
import subprocess
import time

from harness import FOLDER, WEFT, answer, case, check, golden, read, start_node, stop_node, weft

SHAPE = {"dim": 48, "hidden_dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 300, "context": 128}

NO_TOKENIZER = "no --tokenizer: a token is a byte, which is for models that learned so\n"


def written(name, data):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def checkpoint(name="model.bin", own_classifier=False, **changed):
    """A llama2.c checkpoint with weights from a seed."""
    s = {**SHAPE, **changed}
    draws = random.Random(1)
    dim, hidden, layers, head = s["dim"], s["hidden_dim"], s["layers"], s["dim"] // s["heads"]
    kv = s["kv_heads"] * head
    shares = [(s["vocab"] * dim, dim), (layers * dim, 0), (layers * dim * dim, dim), (layers * kv * dim, dim),
              (layers * kv * dim, dim), (layers * dim * dim, dim), (layers * dim, 0), (layers * hidden * dim, dim),
              (layers * dim * hidden, hidden), (layers * hidden * dim, dim), (dim, 0), (s["context"] * head, 0)]
    if own_classifier:
        shares.append((s["vocab"] * dim, dim))
    values = []
    for count, inputs in shares:
        scale = (3 / inputs) ** 0.5 if inputs else 0
        values += [scale * draws.uniform(-1, 1) if inputs else 1.0 for _ in range(count)]
    sizes = [*s.values()]
    sizes[5] = -sizes[5] if own_classifier else sizes[5]
    return written(name, struct.pack("<7i", *sizes) + struct.pack(f"<{len(values)}f", *values))


def text(count=3000):
    draws = random.Random(2)
    words = ["the", "lamp", "on", "a", "hill", "was", "lit", "by", "no", "one."]
    return written("text.txt", " ".join(draws.choice(words) for _ in range(count)).encode()[:count])


@case
def codec_ppl_says_what_a_codec_costs():
    common = ["--model", checkpoint(), "--text", text(), "--block-tokens", "16"]
    raw = answer("codec", "ppl", *common, "--codec", "raw")
    golden("codec_ppl", raw)
    check(raw["kl_mean"] == 0 and raw["ppl_delta_pct"] == 0 and raw["ppl"] == raw["ppl_exact"] > 1, raw)
    check(0.9 < raw["ratio"] <= 1, raw)
    # 3001 tokens are 24 windows of 127; 6 are for calibration, 18 are left, of which one has 80
    check((raw["windows"], raw["tokens"], raw["calibration_tokens"]) == (18, 17 * 127 + 80, 6 * 127), raw)
    check(raw["blocks"] == 17 * 7 + 5, raw)
    none = answer("codec", "ppl", *common, "--codec", "none", "--threads", "1")
    check({**none, "codec": "raw", "seconds": 0} == {**raw, "seconds": 0}, "none is not raw", none)
    full = answer("codec", "ppl", *common, "--codec", "raw", "--dtype", "f32")
    check(full["ppl_exact"] != raw["ppl_exact"] and abs(full["ppl_exact"] / raw["ppl_exact"] - 1) < 0.01, full)
    for name in "int8", "int2":
        lossy = answer("codec", "ppl", *common, "--codec", name)
        check(lossy["kl_mean"] > 0 and lossy["ppl"] != lossy["ppl_exact"] == raw["ppl_exact"], lossy)
        check(lossy["ratio"] > 1.1 and lossy["kl_error"] > 0 and lossy["blocks"] == raw["blocks"], lossy)
    few = answer("codec", "ppl", *common, "--codec", "raw", "--tokens", "1016", "--window", "64")
    check((few["tokens"], few["window"], few["text_cut"]) == (1016 - 4 * 63, 64, True), few)
    done = weft("codec", "ppl", *common, "--codec", "raw")
    said = done.stdout.decode()
    check(done.stderr.decode() == NO_TOKENIZER, done.stderr)
    check("raw: 0.98 times" in said and "KL 0 nats" in said, said)
    check("text goes on" not in said, said)


@case
def codec_ppl_reads_checkpoints_of_all_kinds():
    words = ["--text", text(1200), "--codec", "raw", "--tokens", "600"]
    for name, changed in (("own.bin", {"own_classifier": True}), ("all.bin", {"kv_heads": 4}),
                          ("small.bin", {"context": 16, "vocab": 259})):
        said = answer("codec", "ppl", "--model", checkpoint(name, **changed), *words)
        check(said["model"]["kv_heads"] == changed.get("kv_heads", 2) and said["kl_mean"] == 0, name, said)
    check(said["block_tokens"] == 4, "two blocks do not fit into a window", said)  # small.bin


@case
def codec_says_what_is_wrong():
    model = checkpoint()
    long = text(3000)
    binary = written("binary.txt", b"words\0words" * 1000)
    with open(model, "rb") as file:
        weights = file.read()
    broken = written("broken.bin", weights[:28] + struct.pack("<f", float("nan")) * 300 * 48 + weights[28 + 57600:])
    why = weft("codec", "ppl", "--model", broken, "--text", long, "--codec", "raw", "--tokens", "600", expect=5)
    check("damaged" in why.stderr.decode(), why.stderr)
    cut = written("cut.bin", weights[:-4])
    for words, said in ((["ppl"], "--model"), (["ppl", "--model", model], "--text"),
                        (["ppl", "--model", cut, "--text", long], "bytes"),
                        (["ppl", "--model", long, "--text", long], "not a llama2.c checkpoint"),
                        (["ppl", "--model", model, "--text", binary], "zero byte"),
                        (["ppl", "--model", model, "--text", long, "--tokens", "60"], "60 tokens of"),
                        (["ppl", "--model", model, "--text", written("short.txt", b"a word " * 10)], "longer text"),
                        (["ppl", "--model", model, "--text", long, "--tokens", "300", "--window", "128"],
                         "or for shorter windows"),
                        (["ppl", "--model", model, "--text", long, "--codec", "int8", "--profile", model], "--profile"),
                        (["ppl", "--model", model, "--tokenizer", model, "--text", long], "tokenizer"),
                        (["ppl", "--model", checkpoint("words.bin", vocab=512), "--text", long],
                         "words.bin has 512 tokens"),
                        (["ppl", "--model", model, "--tokenizer", os.devnull, "--text", long], "no bytes"),
                        (["ppl", "--model", model, "--tokenizer", FOLDER, "--text", long], "tokenizer"),
                        (["ppl", "--model", model, "--text", long, "--codec", "transparent", "--kl", "-1"], "--kl"),
                        (["ppl", "--model", model, "--text", long, "--kl", "nan"], "--kl"),
                        (["ppl", "--model", model, "--text", long, "--kl", "0"], "--kl is 0"),
                        (["calibrate", "--output", "/dev/null", "--ppl-pct", "0"], "--ppl-pct is 0"),
                        (["ppl", "--model", model, "--text", long, "--block-tokens", "0"], "--block-tokens is 0"),
                        (["ppl", "--model", model, "--text", long, "--tokens", "0"], "--tokens is 0"),
                        (["ppl", "--model", model, "--text", long, "--ppl-pct", "inf"], "--ppl-pct"),
                        (["ppl", "--model", model, "--text", long, "--codec", "rwa"], "'raw'"),
                        (["ppl", "--model", model, "--text", long, "--block-tokens", "128"], "--block-tokens"),
                        (["ppl", "--model", model, "--text", long, "--window", "1"], "window"),
                        (["ppl", "--text", long], "--model"), (["kv"], "--output"), (["pl"], "'ppl'"),
                        (["ppl", "more"], "too many"),
                        (["kv", "--text", long, "--output", "/dev/null", "--format-output", "/dev/null"], "--model")):
        why = weft("codec", *words, expect=2).stderr.decode().replace(NO_TOKENIZER, "")
        check(said in why and why.count("\n") == 1, words, why)
    for words in (["--text", "/nowhere"], ["--text", long, "--tokenizer", "/nowhere"],
                  ["--text", long, "--codec", "economy", "--profile", "/nowhere"]):
        why = weft("codec", "ppl", "--model", model, *words, expect=6).stderr.decode().replace(NO_TOKENIZER, "")
        check("/nowhere: No such file" in why and why.count("\n") == 1, words, why)
    check("/nowhere" in weft("codec", "ppl", "--model", "/nowhere", "--text", long, expect=6).stderr.decode())


@case
def codec_kv_writes_blocks():
    blocks, form = (os.path.join(FOLDER, name) for name in ("codec-kv.bin", "codec-kv.json"))
    outputs = ["--output", blocks, "--format-output", form]
    said = answer("codec", "kv", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", *outputs)
    golden("codec_kv", said)
    with open(form, encoding="utf-8") as file:
        check(json.load(file) == said, "the file is another answer")
    check(said["blocks"] == 23 * 7 + 5 and said["blocks_per_sequence"] == 7, said)
    check(said["block_bytes"] == 2 * 2 * 16 * 24 * 2 and os.path.getsize(blocks) == said["blocks"] * said["block_bytes"])
    with open(blocks, "rb") as file:
        halves = struct.unpack(f"<{os.path.getsize(blocks) // 2}H", file.read())
    check(len(set(halves)) > 1000, "that is no KV")
    check(not any((half & 0x7f80) == 0x7f80 for half in halves), "infinite")
    full = answer("codec", "kv", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", "--dtype", "f32",
                  "--tokens", "508", *outputs)
    check(full["blocks"] == 28, full)
    with open(blocks, "rb") as file:
        first = struct.unpack("<24f", file.read(96))
    near = [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves[:24]]
    check(all(abs(a - b) <= abs(a) / 256 for a, b in zip(first, near)), first, near)
    made_up = answer("codec", "kv", "--tokens", "500", "--window", "100", *outputs)
    check(made_up["made_up"] and made_up["model"].startswith("made-up@"), made_up)
    kept = [open(path, "rb").read() for path in (blocks, form)]
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)) # which this process ignores the signal of
    for places in (outputs, ["--output", blocks + ".fresh", "--format-output", form + ".fresh"]):
        full = subprocess.run([WEFT, "codec", "kv", "--tokens", "1000", "--window", "100", *places], capture_output=True,
                              preexec_fn=small, restore_signals=False)
        check(full.returncode == 6 and full.stderr.decode().count(places[1]) == 1, full)
    check([open(path, "rb").read() for path in (blocks, form)] == kept, "what had no room replaced something")
    left = [name for name in os.listdir(FOLDER) if name.startswith("codec-kv.") and name not in ("codec-kv.bin", "codec-kv.json")]
    check(not left, left)
    check("/nowhere/kv" in weft("codec", "kv", "--tokens", "500", "--window", "100", "--output", "/nowhere/kv",
                                "--format-output", form, expect=6).stderr.decode())
    if os.path.exists("/dev/full"):
        weft("codec", "kv", "--tokens", "500", "--window", "100", "--output", "/dev/full", "--format-output", form,
             expect=6)


@case
def codec_list_names_all():
    rows = answer("codec", "list")
    names = [row["codec"] for row in rows]
    check(names[0] == "lossless" and "raw" in names and len(set(names)) == len(names), names)
    check(all(row["says"] and isinstance(row["lossless"], bool) for row in rows), rows)
    said = weft("codec", "list").stdout.decode()
    check(all(name in said for name in names), said)


def kv_written():
    """Blocks of a model's KV, and the file that says what they are."""
    blocks, form = (os.path.join(FOLDER, name) for name in ("bench.bin", "bench.json"))
    answer("codec", "kv", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", "--tokens", "1000",
           "--output", blocks, "--format-output", form)
    return blocks, form


@case
def codec_bench_measures_all_codecs():
    blocks, form = kv_written()
    given = ["--input", blocks, "--format", form, "--rounds", "1", "--working-set", "256KiB"]
    rows = answer("codec", "bench", *given)
    names = [row["codec"] for row in rows]
    plain = [row["codec"] for row in answer("codec", "list") if not row["calibrated"]]
    check(names == plain + ["zstd-1", "zstd-3", "lz4"], names)
    for row in rows:
        check(row["ratio"] > 0.9 and row["dtype"] == "bf16" and row["block_tokens"] == 16, row)
        check(min(row[name] for name in ("encode_gbps", "decode_gbps", "memcpy_gbps")) > 0, row)
        check((row["max_abs_err"] == 0) == row["lossless"], row)
        check(row["working_set_bytes"] >= 256 << 10 and row["threads"] == 1 and not row["made_up"], row)
    check(rows[0]["ratio"] > 1.1 and rows[0]["ratio"] > rows[names.index("lz4")]["ratio"], rows[0])
    check(all(row["test_build"] is True for row in rows), rows[0])  # tests are of builds with hooks
    some = answer("codec", "bench", *given, "--codec", "lz4,lossless-fixed")
    check([row["codec"] for row in some] == ["lz4", "lossless-fixed"], some)
    said = weft("codec", "bench", *given, "--codec", "lossless").stdout.decode()
    check("16 tokens" in said and "lossless" in said, said)


@case
def codec_bench_takes_what_is_no_number():
    """A NaN of a layer: that plane is stored as it is, and errors are those of the others."""
    blocks, form = kv_written()
    with open(blocks, "rb") as file:
        whole = file.read()
    spoilt = written("nan.bin", b"\xff\xff\x80\x7f" + whole[4:])
    row, = answer("codec", "bench", "--input", spoilt, "--format", form, "--codec", "int8", "--rounds", "1",
                  "--working-set", "64KiB")
    check(0 < row["mean_abs_err"] < 1 and 0 < row["rms_rel_err"] < 1 and row["max_abs_err"] < 10, row)


@case
def codec_bench_takes_odd_blocks():
    """Of a few bytes, of what is no number, of one number all over: exact where the codec is, no larger than it
    says, and in bounded time."""
    sizes = {"f32": 4, "f16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}
    nothing = {"f32": 0x7f800001, "f16": 0x7c01, "bf16": 0x7f81, "fp8_e4m3": 0x7f, "fp8_e5m2": 0x7d}
    for dtype, size in sizes.items():
        for dim, tokens in ((1, 1), (3, 1), (80, 16)):
            count, seeded = 3 * 2 * dim * tokens, random.Random(dim)
            for element in (lambda: 0, lambda: nothing[dtype], lambda: seeded.randrange(1, 4),
                            lambda: seeded.getrandbits(8 * size)):
                blocks = written("odd.bin", b"".join(element().to_bytes(size, "little") for _ in range(count)))
                form = written("odd.json", json.dumps({"layers": 1, "kv_heads": 1, "head_dim": dim, "block_tokens": tokens,
                                                       "dtype": dtype}).encode())
                row, = answer("codec", "bench", "--input", blocks, "--format", form, "--codec", "lossless", "--rounds", "1",
                              "--working-set", "16KiB")
                block = 2 * dim * tokens * size
                check(row["lossless"] and row["max_abs_err"] == 0, dtype, row)
                check(block / row["ratio"] < 1.01 * block + 64.5, dtype, row)
                # a block counts as 256 bytes at least: who asks for many of a few bytes waits no longer for it
                check(row["working_set_bytes"] == block * max(3, -(-(16 << 10) // max(block, 256))), dtype, row)


@case
def codec_bench_without_kv_says_so():
    done = weft("codec", "bench", "--working-set", "1MiB", "--rounds", "1", "--codec", "raw", "--tokens", "500",
                "--window", "100")
    check("MADE-UP" in done.stdout.decode() and "MADE-UP" in done.stderr.decode(), done)
    check("its speeds mean nothing" in done.stderr.decode(), done)  # tests are of builds with hooks
    check("--window" not in done.stderr.decode(), done)


@case
def codec_bench_says_what_it_did_not_take():
    blocks, form = kv_written()
    common = ["--rounds", "1", "--codec", "raw", "--working-set", "1KB"]
    said = weft("codec", "bench", *common, "--input", blocks, "--format", form).stderr.decode()
    check("--working-set 1 KiB is less than the KV itself" in said, said)
    common = [*common, "--model", checkpoint(), "--text", text(), "--tokens", "1000", "--window"]
    said = weft("codec", "bench", *common, "4096").stderr.decode()
    check("--window 4096 is more than the 128 tokens that the model's context has; windows are of 128" in said, said)
    check("--window" not in weft("codec", "bench", *common, "64").stderr.decode())


@case
def codec_bench_says_what_is_wrong():
    blocks, form = kv_written()
    short = written("short.bin", open(blocks, "rb").read()[:-1])
    none = written("none.json", b'{"layers": 2, "kv_heads": 2, "head_dim": 12}')
    large = written("large.json", b'{"layers": 1, "kv_heads": 4096, "head_dim": 4096, "block_tokens": 65536, "dtype": "f32"}')
    odd = written("odd.json", b'{"layers": 1, "kv_heads": 1, "head_dim": 1, "block_tokens": 1, "dtype": "f64"}')
    whole, form_text = open(blocks, "rb").read(), open(form, encoding="utf-8").read()

    def formed(name, leave_out=(), **changed):
        rows = {key: value for key, value in {**json.loads(form_text), **changed}.items() if key not in leave_out}
        return ["--input", blocks, "--format", written(name + ".json", json.dumps(rows).encode())]

    def sized(name, data, leave_out=()):
        return ["--input", written(name + ".bin", data), *formed(name, leave_out)[2:]]

    typed = written("typed.json", open(form, "rb").read().replace(b"blocks_per_sequence", b"blocks_per_sequenc"))
    for words, said in ((["--input", blocks], "--format"), (["--format", form], "--input"),
                        (["--input", blocks, "--format", form, "--dtype", "f16"], "--dtype f16"),
                        (["--input", blocks, "--format", typed], "did you mean 'blocks_per_sequence'?"),
                        (["--input", blocks, "--format", written("list.json", b"[1]")], "no JSON object"),
                        (["--input", short, "--format", form], "where the file is cut, write both again"),
                        (sized("cut", whole[:-1], ["blocks"]), "where the file is cut, write it again"),
                        (sized("ten", whole[:10 * 3072], ()), "30720 bytes, and the format says 55 blocks of 3072"),
                        (sized("more", whole + whole, ()), "where the file has grown"),
                        (sized("empty", b""), "empty.bin is empty"),
                        (formed("wide", dtype="f32"), "are blocks of 6144 bytes, and its block_bytes is 3072"),
                        (formed("heads", kv_heads=3), "contradicts itself"),
                        (formed("untyped", ["dtype"]), "has no dtype"),
                        (formed("bf17", dtype="bf17"), '"dtype": "bf17"; give f32'),
                        (formed("five", dtype=5), '"dtype": 5; give f32'),
                        (formed("minus", layers=-6), '"layers": -6; give a number from 1 to 2048'),
                        (formed("text", layers="2"), '"layers": "2"; give a number'),
                        (formed("long", block_tokens=65537), '"block_tokens": 65537'),
                        (formed("less", blocks=-1), '"blocks": -1'),
                        (["--codec", "zstd-9"], "zstd-1, zstd-3 and lz4"),
                        (["--input", blocks, "--format", blocks], "cannot read the format"),
                        (["--input", blocks, "--format", none], "block_tokens"),
                        (["--input", blocks, "--format", large], "no block"),
                        (["--input", blocks, "--format", odd], "dtype"),
                        (["--input", blocks, "--format", form, "--model", checkpoint()], "--model"),
                        (["--codec", "losless"], "'lossless'"), (["--codec", "raw,,raw"], "commas"),
                        (["--input", blocks, "--format", form, "--codec", "economy"], "calibrated"),
                        (["--rounds", "0"], "--rounds"), (["--working-set", "5GiB"], "4 GiB")):
        why = weft("codec", "bench", *words, expect=2).stderr.decode()
        check(said in why and why.count("\n") == 1, words, why)
    row, = answer("codec", "bench", *formed("said", ["dtype"]), "--dtype", "bf16", "--codec", "raw", "--rounds", "1")
    check(row["dtype"] == "bf16", row)
    check("/nowhere" in weft("codec", "bench", "--input", "/nowhere", "--format", form, expect=6).stderr.decode())
    check("/nowhere" in weft("codec", "bench", "--input", blocks, "--format", "/nowhere", expect=6).stderr.decode())


@case
def codec_ppl_reads_short_texts():
    """Too few tokens for four windows of the model's context: shorter ones, which is said."""
    done = weft("codec", "ppl", "--model", checkpoint(), "--text", written("few.txt", b"a few words, " * 20),
                "--codec", "transparent", "--json")
    row = json.loads(done.stdout)
    check(row["window"] == 87 and row["windows"] == 3 and row["block_tokens"] == 32, row)
    check("windows are of 87 tokens" in done.stderr.decode(), done.stderr)


@case
def codec_calibrate_writes_what_ppl_reads():
    given = ["--model", checkpoint(), "--text", text(), "--block-tokens", "16"]
    profile = os.path.join(FOLDER, "model.wfprofile")
    made = answer("codec", "calibrate", *given, "--output", profile)
    check(made["design_windows"] >= 1 and made["held_windows"] >= 1 and made["held_apart"], made)
    check([(p["layer"], p["kv"]) for p in made["planes"]] == [(0, "k"), (0, "v"), (1, "k"), (1, "v")], made["planes"])
    check(min(p["sensitivity"] for p in made["planes"]) > 0, made["planes"])
    curve = made["curve"]
    check(all(a["kl"] < b["kl"] and a["ratio"] < b["ratio"] for a, b in zip(curve, curve[3:])), curve)
    middle = curve[len(curve) // 2]
    check(0.2 < middle["kl"] / middle["kl_predicted"] < 5, middle)
    rows = {}
    for quality in ("transparent", "economy"):
        rows[quality] = answer("codec", "ppl", *given, "--codec", quality, "--profile", profile)
        check(rows[quality]["kl_mean"] > 0 and rows[quality]["profile_tokens"] > 0, rows)
        check(rows[quality]["profile_model"].startswith("llama2.c@"), rows)
    check(rows["economy"]["ratio"] > rows["transparent"]["ratio"] > 1.5, rows)
    check(rows["economy"]["kl_mean"] > rows["transparent"]["kl_mean"], rows)
    said = weft("codec", "ppl", *given, "--codec", "economy", "--profile", profile).stdout.decode()
    check(f"profile of {rows['economy']['profile_tokens']} tokens" in said, said)
    own = answer("codec", "ppl", *given, "--codec", "transparent", "--kl", "0.01")
    check("profile_tokens" not in own, own)
    check(own["calibration"]["transparent"]["kl"] <= 0.01 and own["ratio"] > 1.5, own)
    why = weft("codec", "ppl", *given, "--codec", "economy", "--profile", profile, "--dtype", "fp8_e4m3", expect=2).stderr
    check(b"is of KV in bf16" in why and b"--dtype fp8_e4m3" in why, why)
    named = os.path.join(FOLDER, "named.wfprofile")
    weft("codec", "calibrate", *given, "--name", "served@1", "--output", named)
    why = weft("codec", "ppl", *given, "--codec", "economy", "--profile", named).stderr
    check(b"of model served@1" in why, why)
    blocks, form = kv_written()
    bench = answer("codec", "bench", "--input", blocks, "--format", form, "--profile", profile, "--working-set", "1MiB",
                   "--rounds", "1", "--codec", "economy,transparent")
    check([row["codec"] for row in bench] == ["economy", "transparent"] and bench[0]["max_abs_err"] > 0, bench)


@case
def codec_calibrate_says_what_cannot_be_had():
    """No setting costs so little: the quality is left out of the profile, and lossless takes its place."""
    given = ["--model", checkpoint(), "--text", text(), "--block-tokens", "16"]
    profile = os.path.join(FOLDER, "strict.wfprofile")
    done = weft("codec", "calibrate", *given, "--kl", "1e-9", "--output", profile, "--json")
    made, said = json.loads(done.stdout), done.stderr.decode()
    check("transparent is not calibrated" in said and "--kl 1e-09" in said and "losslessly" in said, said)
    fine, economy = made["transparent"], made["economy"]
    check(fine["parameter"] == 0 and not fine["met"] and fine["smaller_than_lossless"] and fine["kl"] > 1e-9, fine)
    check(economy["parameter"] > 0 and economy["met"] and "economy is not" not in said, economy)
    check(economy["kl_error"] > 0 and economy["ppl_delta_pct_error"] > 0 and made["lossless_ratio"] > 1.1, made)
    # enum weft_quality numbers the settings of 16 bytes, from byte 56 of the file on
    settings = [struct.unpack_from("<H", open(profile, "rb").read(), 56 + 16 * quality)[0] for quality in (2, 3)]
    check(settings == [0, economy["parameter"]], settings)
    done = weft("codec", "ppl", *given, "--codec", "transparent", "--profile", profile, "--json")
    row = json.loads(done.stdout)
    check(row["stored_as"] == "lossless" and row["kl_mean"] == 0 and row["ratio"] > 1.1, row)
    check("all figures are of lossless" in done.stderr.decode(), done.stderr)
    own = answer("codec", "ppl", *given, "--codec", "transparent", "--kl", "1e-9")
    check(own["stored_as"] == "lossless" and own["calibration"]["transparent"]["met"] is False, own)
    said = weft("codec", "calibrate", *given, "--output", profile).stdout.decode()
    check(said.count(" ± ") == 4 and "not calibrated" not in said, said)
    # Planes of 48 bytes are stored as they are, whatever is tried.
    tiny = ["--model", checkpoint("one.bin", kv_heads=1), "--text", text(), "--block-tokens", "2", "--dtype", "fp8_e4m3"]
    done = weft("codec", "calibrate", *tiny, "--output", profile, "--json")
    made, said = json.loads(done.stdout), done.stderr.decode()
    for quality in ("transparent", "economy"):
        point = made[quality]
        check((point["parameter"], point["met"], point["smaller_than_lossless"]) == (0, True, False), point)
        check(f"{quality} is not calibrated: KV would be 0.60 times" in said, said)
    said = weft("codec", "calibrate", *tiny, "--output", profile).stdout.decode()
    check(said.count("not calibrated") == 2, said)


@case
def codec_show_says_what_a_profile_is():
    profile = os.path.join(FOLDER, "shown.wfprofile")
    made = answer("codec", "calibrate", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", "--name",
                  "shown@1", "--output", profile)
    said = answer("codec", "show", profile)
    golden("codec_show", said)
    check(said["file"] == profile and said["bytes"] == os.path.getsize(profile), said)
    for quality in ("transparent", "economy"):
        for name in ("parameter", "kl", "ppl_delta_pct", "ratio"):
            check(abs(said[quality][name] - made[quality][name]) <= 1e-3 * abs(made[quality][name]) + 1e-6, name, said)
        bits = [plane["bits"][quality] for plane in said["planes"]]
        check(0.5 < 16 * len(bits) / sum(bits) / said[quality]["ratio"] < 2, quality, said)
    check(all(plane["bits"]["transparent"] > plane["bits"]["economy"] > 0 for plane in said["planes"]), said)
    words = weft("codec", "show", profile).stdout.decode()
    check("model shown@1" in words and "2 layers of 2 KV heads of 12 channels, bf16" in words, words)
    check("neighbours, base 10000" in words and said["id"] in words and "economy_v" in words.lower(), words)
    with open(profile, "rb") as file:
        whole = file.read()
    for name, why in ((written("cut.wfprofile", whole[:-9]), "copy it again"), (checkpoint(), "this is no profile"),
                      (written("none.wfprofile", b""), "this is no profile"), (FOLDER, "this is no file")):
        told = weft("codec", "show", name, expect=2).stderr.decode()
        check(why in told and told.count("\n") == 1, name, told)
    check("/nowhere: No such file" in weft("codec", "show", "/nowhere", expect=6).stderr.decode())
    check("codec show FILE" in weft("codec", "show", expect=2).stderr.decode())
    check("too many" in weft("codec", "show", profile, profile, expect=2).stderr.decode())


@case
def codec_profiles_that_are_none():
    profile = os.path.join(FOLDER, "other.wfprofile")
    weft("codec", "calibrate", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", "--output", profile)
    given = ["codec", "ppl", "--model", checkpoint("wide.bin", kv_heads=4), "--text", text(), "--codec", "economy"]
    whole = open(profile, "rb").read()
    for name, said in ((profile, "calibrate this one"),
                       (written("cut.wfprofile", whole[:-9]), "copy it again"), (checkpoint(), "no profile"),
                       (written("flip.wfprofile", whole[:5000] + b"~~" + whole[5002:]), "checksum")):
        why = weft(*given, "--profile", name, expect=2).stderr.decode().replace(NO_TOKENIZER, "")
        check(said in why and why.count("\n") == 1, name, why)
    check("--output" in weft("codec", "calibrate", "--model", checkpoint(), "--text", text(), expect=2).stderr.decode())


@case
def codec_install_puts_a_profile_where_the_node_reads_it():
    """With a name that nothing else has there, and until the node says that it has read it."""
    state, at = os.path.join(FOLDER, "install"), ["--socket", os.path.join(FOLDER, "install.sock")]
    made, other = (os.path.join(FOLDER, name) for name in ("mine.wfprofile", "other.wfprofile"))
    given = ["codec", "calibrate", "--model", checkpoint(), "--text", text()]
    weft(*given, "--name", "tiny", "--output", made)
    weft(*given, "--name", "another", "--output", other)
    cut = written("cut.wfprofile", read(made)[:-9])
    # A node that is to store nothing with loss has no folder for it; one that is to makes it when it starts.
    node = start_node("16MB", at[1], WEFT_STATE_DIR=state)
    check("the folder that it is to lie in is not there" in weft("codec", "install", made, *at, expect=6).stderr.decode())
    stop_node(node)
    config = written("install.yaml", b"domains:\n  - name: default\n    quality: economy\n")
    check("/nowhere/w.sock" in weft("codec", "install", made, "--socket", "/nowhere/w.sock", expect=3).stderr.decode())
    node = start_node("16MB", at[1], WEFT_STATE_DIR=state, WEFT_CONFIG=config)
    try:
        known = answer("ls", "profiles", *at)
        check(known["folder"] == f"{state}/profiles" and known["profiles"] == [], known)
        check("copy it again" in weft("codec", "install", cut, *at, expect=2).stderr.decode())
        check("say which profile" in weft("codec", "install", *at, expect=2).stderr.decode())
        done = answer("codec", "install", made, *at)
        golden("codec_install", done)
        check(done["file"] == f"{state}/profiles/mine.wfprofile" and done["installed"], done)
        check(read(done["file"]) == read(made), "another file")
        again = answer("codec", "install", made, *at)
        check(not again["installed"] and again["file"] == done["file"], again)
        os.replace(other, made)  # another profile of that name: both are kept
        beside = answer("codec", "install", made, *at)
        check(beside["file"] == f"{state}/profiles/mine-{beside['id']}.wfprofile", beside)
        check(beside["model"] == "another" and read(beside["file"]) == read(made), beside)
        there = sorted(os.path.basename(p["file"]) for p in (done, beside))
        check(sorted(os.listdir(f"{state}/profiles")) == there, "more files")
        known = answer("ls", "profiles", *at)
        golden("ls_profiles", known)
        check([p["model"] for p in known["profiles"]] == ["tiny", "another"], known)
        shown = weft("ls", "profiles", *at).stdout.decode()
        check(f"read from {state}/profiles" in shown, shown)
        os.unlink(done["file"])
        end = time.time() + 60
        while answer("ls", "profiles", *at)["profiles"][0]["there"]:
            check(time.time() < end, "a file that is gone is there for ever")
            time.sleep(0.05)
    finally:
        stop_node(node)


@case
def codec_calibrate_leaves_a_whole_profile_or_none():
    """Whoever dies, or finds no room, leaves the profile that was there, and no part of one."""
    given = [WEFT, "codec", "calibrate", "--model", checkpoint(), "--text", text(), "--block-tokens", "16", "--output"]
    old, fresh = (os.path.join(FOLDER, name + ".wfprofile") for name in ("old", "fresh"))
    check(subprocess.run([*given, old], capture_output=True).returncode == 0)
    whole = open(old, "rb").read()
    os.chmod(old, 0o640)
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)) # which this process ignores the signal of
    for path in (old, fresh):
        done = subprocess.run([*given, path], capture_output=True, preexec_fn=small, restore_signals=False)
        check(done.returncode == 6 and done.stderr.decode().count(path) == 1, done)
        check(not os.path.exists(path + ".new"), path)
    for path in (old, fresh):
        dies = subprocess.Popen([*given, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(path + ".new") and dies.poll() is None:
            time.sleep(0.001)
        dies.kill()
        check(dies.wait() == -9, "it was done before it was killed")
    check(open(old, "rb").read() == whole and not os.path.exists(fresh))
    link = os.path.join(FOLDER, "link.wfprofile")
    os.symlink(old, link)
    check(subprocess.run([*given, link, "--name", "another"], capture_output=True).returncode == 0)
    check(os.path.islink(link) and open(old, "rb").read() != whole and not os.path.exists(old + ".new"))
    check(os.stat(old).st_mode & 0o777 == 0o640, "its rights are others now")
    check("0x1b" in weft(*given[1:], fresh, "--name", "\x1b[31m", expect=2).stderr.decode())


@case
def what_a_chain_lost_is_said():
    """Blocks that a node stored with loss: who exports them, gets them or lists domains is told."""
    at, folder = ["--socket", os.path.join(FOLDER, "lossy.sock")], os.path.join(FOLDER, "lossy")
    os.makedirs(os.path.join(folder, "profiles"))
    blocks, form = (os.path.join(FOLDER, name) for name in ("chain.bin", "chain.json"))
    given = ["--model", checkpoint("long.bin", context=512, kv_heads=4), "--text", text()]
    weft("codec", "calibrate", *given, "--name", "tiny", "--kl", "0.1",
         "--output", os.path.join(folder, "profiles", "tiny.wfprofile"))
    shape = answer("codec", "kv", *given, "--tokens", "2048", "--output", blocks, "--format-output", form)
    count = shape["blocks_per_sequence"]
    check((count, shape["block_tokens"], shape["block_bytes"]) == (7, 64, 24 << 10), shape)  # room that a tier can save
    with open(blocks, "r+b") as file:
        file.truncate(count * shape["block_bytes"])
    named = ["--model", "tiny", "--layers", "2", "--kv-heads", "4", "--head-dim", "12", "--dtype", "bf16", "--block-tokens",
             "64", "--rope-theta", "10000", "--tokens", ",".join(str(i) for i in range(64 * count))]
    config = written("lossy.yaml", b"domains:\n  - name: default\n    quality: transparent\n")
    how = {"tiers": [f"nvme:{folder}/nvme:64MB"], "WEFT_STATE_DIR": folder, "WEFT_CONFIG": config}
    node = start_node("16MB", at[1], **how)
    try:
        weft("put", *named, *at, blocks)
        weft("session", "archive", "lossy", *named, *at)
    finally:
        stop_node(node)
    node = start_node("16MB", at[1], **how)
    try:
        until = time.time() + 10
        while answer("match", *named, *at, expect=None)["opening"] and time.time() < until:
            time.sleep(0.05)
        exported = os.path.join(folder, "lossy.weft")
        check(answer("session", "export", "lossy", "--output", exported, *at)["quality"] == "transparent")
        said = weft("session", "export", "lossy", "--output", exported, *at).stdout.decode()
        check("stored with loss: transparent" in said, said)
        good, forged = read(exported), os.path.join(folder, "forged.weft")
        quality_at = struct.unpack_from("<I", good, 12)[0] + 36  # of the first block
        check(struct.unpack_from("<I", good, quality_at)[0] == 2, "the file does not say transparent")
        for quality, code, what in ((0, 5, "its end does not fit"), (9, 5, "block 0 is damaged"), (3, 4, "quality economy")):
            with open(forged, "wb") as file:
                file.write(good[:quality_at] + struct.pack("<I", quality) + good[quality_at + 4:])
            why = weft("session", "import", forged, "--as", "forged", *at, expect=code).stderr.decode()
            check(what in why, quality, why)
        out = os.path.join(folder, "out")
        check(answer("get", *named, *at, "--output", out)["quality"] == "transparent")
        said = weft("get", *named, *at, "--output", out).stderr.decode()
        check("7 of 7 blocks" in said and "some of them were stored with loss: transparent" in said, said)
        head, row = (line.split() for line in weft("ls", "domains", *at).stdout.decode().splitlines()[:2])
        check(dict(zip(head, row))["quality"] == "transparent", head, row)
        said = weft("put", *named, *at, blocks).stdout.decode()  # what is there is as its domain asks for it
        check(f"{count} were there already, at quality transparent" in said, said)
        again = answer("put", *named, *at, blocks)
        check(again["quality"] == "transparent", again)
    finally:
        stop_node(node)

    def opened():
        until = time.time() + 10
        while answer("match", *named, *at, expect=None)["opening"] and time.time() < until:
            time.sleep(0.05)

    profile = os.path.join(folder, "profiles", "tiny.wfprofile")
    os.rename(profile, profile + ".aside")
    node = start_node("16MB", at[1], **how)
    try:
        opened()
        why = weft("session", "export", "lossy", "--output", exported, *at, expect=1).stderr.decode()
        check("is whole" in why and "profile" in why and "damaged" not in why, why)
    finally:
        stop_node(node)
    os.rename(profile + ".aside", profile)

    how["WEFT_CONFIG"] = written("lossless.yaml", b"domains:\n  - name: default\n    quality: lossless\n")
    node = start_node("16MB", at[1], **how)
    try:
        opened()
        missing = answer("get", *named, *at, "--output", os.devnull, expect=1)["missing"]
        check(missing["why"] == "quality" and "quality transparent" in missing["text"], missing)
        why = weft("get", *named, *at, "--output", os.devnull, expect=1).stderr.decode()
        check("quality transparent" in why, why)
        story = weft("explain", again["first_key"], *at, expect=None).stdout.decode()
        check("not found" in story and "quality transparent" in story, story)
        why = weft("session", "export", "lossy", "--output", exported, *at, expect=1).stderr.decode()
        check("is whole" in why and "quality transparent" in why, why)
    finally:
        stop_node(node)
