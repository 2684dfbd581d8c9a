# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible proxy that keeps llama-server's slots in Weft; the server is as it is.

    llama-server -m model.gguf -c 8192 -np 2 --slot-save-path /dev/shm/slots/
    python -m weft.llamacpp_proxy --server http://127.0.0.1:8080 --slot-save-path /dev/shm/slots \\
        --server-args "-c 8192 -np 2"

Before a request the proxy has the server tokenize the prompt, looks for the longest prefix that a slot was saved for,
writes that file where the server restores slots from, and names the slot in the request.  After the answer the slot is
saved and its file put into Weft.  Two kinds of blocks: pieces of a file, of 1 MiB, under a random name; and for every
64 tokens of the prompt, under a key that has all tokens up to there, a marker that names a file which begins so.

A file says itself which tokens it holds: it is believed only when these begin as the prompt does, and the server
must answer that it restored as many.  Everything else is a miss, and the server computes; it compares the tokens of a
slot with the prompt by itself, too.  A request that is more than text is handed on as it is.

What the server compares is tokens alone: KV that other adapters made stays in its slots and is used again.  So once
adapters may have changed, a slot is erased before it is used, unless the proxy itself was the last to use it, and it is
saved only when nothing else was under way meanwhile.
"""
import argparse
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import struct
import sys
import threading
import urllib.parse

from . import Error, NodeError, connect
from ._weights import _digest as file_digest

PIECE = 1 << 20
STEP = 64
MARKER = struct.Struct("<8s32sQI12x")  # magic, the file's name, its bytes, its tokens
MAGIC = b"wfslot01"
SEQUENCE = 0x67677371  # LLAMA_STATE_SEQ_MAGIC
MEDIA = ("image", "image_url", "input_audio", "video_url", "file")
PLAIN = ("lora", "multimodal_data", "image_data", "n_cache_reuse")  # more than tokens make its KV
REFUSED = {"--cache-reuse": "moves KV to places that it was not computed for",
           "--context-shift": "moves KV to places that it was not computed for",
           "--control-vector": "does not tell what is in that file", "--control-vector-scaled": "does not tell what is in "
           "that file"}
BODY_MAX = 64 << 20


def file_tokens(data):
    """The tokens that a slot's file begins with; None when it is none, or holds more than text."""
    try:
        magic, _, count = struct.unpack_from("<III", data)
        words = struct.unpack_from(f"<{count}i", data, 12)
    except struct.error:
        return None
    if magic != SEQUENCE:
        return None
    if count == 0 or words[0] != -1:
        return list(words)
    # The server packs its tokens since 2026: -1, version 1, number and tokens, number of images and the like.
    if count < 4 or words[1] != 1 or not 0 <= words[2] <= count - 4 or words[3 + words[2]] != 0:
        return None
    return list(words[3:3 + words[2]])


def common(one, other):
    count = 0
    for a, b in zip(one, other):
        if a != b:
            break
        count += 1
    return count


# --------------------------------------------------------------------------------------------- Weft


class Store:
    """Files of slots by the tokens that they begin with."""

    def __init__(self, fabric, identity, salt=b""):
        how = {"layers": 1, "kv_heads": 1, "head_dim": 1, "dtype": "f16", "salt": salt, "quality": "lossless"}
        self.markers = fabric.format(f"llama-server-prefix@{identity}", block_tokens=STEP, block_bytes=MARKER.size,
                                     **how)
        self.pieces = fabric.format(f"llama-server-slot@{identity}", block_tokens=1, block_bytes=PIECE, **how)

    def _names(self, name, size):
        return self.pieces.keys_from_bytes([name + struct.pack("<I", i) for i in range((size + PIECE - 1) // PIECE)])

    def covered(self, tokens):
        """Tokens of the longest prefix that there is a marker for."""
        return self.markers.match(self.markers.keys(tokens)) * STEP

    def find(self, tokens, more_than=0):
        """(tokens in common, the file's tokens, its bytes) of the longest prefix that is there whole; None."""
        keys = self.markers.keys(tokens)
        count = self.markers.match(keys)
        while count * STEP > more_than:
            pins = self.markers.pin(keys[count - 1])
            found = None
            if pins is not None:
                with pins:
                    marker = bytearray(MARKER.size)
                    pins.read_into(0, marker)
                found = self._read(marker)
                there = file_tokens(found) if found is not None else None
                if there is not None and common(there, tokens) >= count * STEP:
                    return common(there, tokens), there, found
                self.markers.remove(keys[count - 1])  # of a file that is gone, or was none
            count -= 1
        return None

    def _read(self, marker):
        magic, name, size, _ = MARKER.unpack(marker)
        if magic != MAGIC:
            return None
        keys = self._names(name, size)
        data = bytearray(len(keys) * PIECE)
        try:
            for i, key in enumerate(keys):
                pins = self.pieces.pin(key)
                if pins is None:
                    return None
                with pins:
                    pins.wait_block(0)
                    pins.read_into(0, data, i * PIECE)
        except NodeError:
            raise
        except Error:  # of one piece: the whole is a miss
            return None
        del data[size:]
        return data

    def put(self, tokens, data):
        """Markers that are new."""
        name = os.urandom(32)
        keys = self._names(name, len(data))
        for i, key in enumerate(keys):
            piece = bytes(data[i * PIECE:(i + 1) * PIECE])
            if self.pieces.put([key], [piece.ljust(PIECE, b"\0")], chained=False) != 1:
                return 0
        marks = self.markers.keys(tokens)
        had = self.markers.match(marks)
        marker = MARKER.pack(MAGIC, name, len(data), len(tokens))
        return self.markers.put(marks[had:], [marker] * (len(marks) - had), parent=marks[had - 1] if had else None)


# ------------------------------------------------------------------------------------------- server


class Slot:
    def __init__(self, number):
        self.number, self.busy, self.tokens, self.seen = number, False, [], 0


class Proxy:
    """What the handlers share."""

    def __init__(self, server, folder, fabric, server_args, model=None, salt=b"", headers=None):
        self.url, self.folder, self.fabric = urllib.parse.urlsplit(server), pathlib.Path(folder), fabric
        self.headers = headers or {}
        self.free = threading.Condition()
        self.counts = {"requests": 0, "restored": 0, "restored_tokens": 0, "saved": 0, "handed_on": 0, "refused": 0}
        self.why = None
        self.arguments, self.model, self.salt = server_args.split(), model, salt
        for word in self.arguments:
            if word.partition("=")[0] in REFUSED:
                raise ValueError(f"llama-server {REFUSED[word.partition('=')[0]]} with {word}, so a slot is not what its "
                                 "tokens say; start it without")
        self.properties, self.adapters, self.store, self.slots = None, None, None, []
        self.mixed, self.others, self.turns = False, 0, 0
        self.looking = threading.Lock()
        if self.look() is None:
            raise ValueError(self.why)

    def look(self, headers=None):
        """The store of what the server is now; None when it cannot be told.  A server that was started again has empty
        slots, and perhaps another model: it is known by a mark in /props that each draws at its start."""
        with self.looking:
            properties = self.ask("GET", "/props", None, headers)
            if not isinstance(properties, dict):
                self.why = "the server does not answer /props"
                return None
            properties.pop("is_sleeping", None)
            anew = properties != self.properties
            adapters = self.ask("GET", "/lora-adapters", None, headers) or [] if anew or self.adapters else []
            if anew or adapters != self.adapters:
                try:
                    store = Store(self.fabric, self._identity(properties, adapters), self.salt)
                except (Error, OSError, ValueError) as error:
                    self.why, self.store, self.properties = str(error), None, None
                    return None
                with self.free:
                    if anew:
                        self.slots = [Slot(i) for i in range(int(properties.get("total_slots", 1)))]
                        self.free.notify_all()
                    self.mixed, self.turns = not anew, self.turns + 1
                self.properties, self.adapters, self.store = properties, adapters, store
            return self.store

    def _identity(self, properties, adapters):
        path = self.model or properties.get("model_path") or ""
        if not os.path.isfile(path):
            raise ValueError(f"the server's model '{path}' is no file here, so its weights cannot be told from others; "
                             "give --model FILE")
        known = []
        for adapter in adapters:
            where = adapter.get("path", "")
            if not os.path.isfile(where):
                raise ValueError(f"the server's adapter '{where}' is no file here, so its weights cannot be told")
            known.append({**adapter, "path": None, "digest": file_digest(where, os.path.getsize(where))})
        told = {"model": file_digest(path, os.path.getsize(path)), "build": properties.get("build_info", ""),
                "adapters": known, "arguments": self.arguments}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:40]

    def open(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port or 80, timeout=3600)
        connection.request(method, path, body, {**self.headers, **(headers or {})})
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=None):
        """The JSON that the server answers; None when it refuses."""
        headers = {key: value for key, value in (headers or {}).items() if key.lower() == "authorization"}
        data = None if body is None else json.dumps(body).encode()
        connection, answer = self.open(method, path, data, {"Content-Type": "application/json", **headers})
        try:
            text = answer.read()
            return json.loads(text) if answer.status == 200 else None
        except ValueError:
            return None
        finally:
            connection.close()

    def tokens_of(self, path, body, headers):
        """Of the prompt; None: this is more than text."""
        if any(body.get(name) for name in PLAIN) or body.get("cache_prompt") is False or \
                body.get("id_slot") not in (None, -1):
            return None
        if path.endswith("/chat/completions"):
            messages = body.get("messages")
            if not isinstance(messages, list) or any(
                    isinstance(part, dict) and part.get("type") in MEDIA for message in messages
                    if isinstance(message, dict) and isinstance(message.get("content"), list)
                    for part in message["content"]):
                return None
            prompt = (self.ask("POST", "/apply-template", body, headers) or {}).get("prompt")
        else:
            prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and all(type(each) is int and 0 <= each < 1 << 31 for each in prompt):
            return prompt
        if not isinstance(prompt, str):
            return None
        ask = {"content": prompt, "add_special": True, "parse_special": True}
        tokens = (self.ask("POST", "/tokenize", ask, headers) or {}).get("tokens")
        return tokens if isinstance(tokens, list) and all(type(each) is int and each >= 0 for each in tokens) else None

    # ---------------------------------------------------------------------------------------- slots

    def take(self, tokens):
        """The free slot that has most of these tokens, or the emptiest when that would cost another conversation more
        than this one gains; waits for one."""
        def worth(slot):
            count = common(slot.tokens, tokens)
            return count if 2 * count >= len(slot.tokens) else 0, -len(slot.tokens)
        with self.free:
            while True:
                free = [slot for slot in self.slots if not slot.busy]
                if free:
                    best = max(free, key=worth)
                    best.busy = True
                    return best
                self.free.wait()

    def give(self, slot):
        with self.free:
            slot.busy = False
            self.free.notify()

    def begin(self, tokens, headers):
        """(slot, store, turn) for a request; None when it cannot be told what the server is."""
        while True:
            slot, store = self.take(tokens), None
            try:
                store = self.look(headers)
            finally:
                with self.free:
                    stays = store is not None and slot in self.slots
                if not stays:
                    self.give(slot)
            if stays:
                return slot, store, self.turn()
            if store is None:
                return None

    def other(self, step, mixes=False):
        """A request that is not the proxy's begins (1) or ends (-1); mixes: it may leave KV that is not its tokens'."""
        with self.free:
            self.others, self.turns, self.mixed = self.others + step, self.turns + 1, self.mixed or mixes

    def turn(self):
        """A number that is the same while nothing else was under way; None while something is."""
        with self.free:
            return None if self.others else self.turns

    def _file(self, slot):
        return f"weft-{os.getpid()}-{slot.number}.slot"

    def restore(self, store, slot, tokens, headers):
        """Have the slot begin with as many of these tokens as Weft has."""
        if self.mixed and (slot.seen is None or slot.seen != self.turn()):
            slot.tokens = []
            self.ask("POST", f"/slots/{slot.number}?action=erase", None, headers)
        have = common(slot.tokens, tokens)
        try:
            found = store.find(tokens, have)
        except Error as error:
            self.why = str(error)
            return
        if not found:
            return
        _, there, data = found
        path = self.folder / self._file(slot)
        try:
            path.write_bytes(data)
            answer = self.ask("POST", f"/slots/{slot.number}?action=restore", {"filename": path.name}, headers) or {}
        finally:
            path.unlink(missing_ok=True)
        if answer.get("n_restored") == len(there):
            slot.tokens = there
            self.counts["restored"] += 1
            self.counts["restored_tokens"] += common(there, tokens)
            return
        # It refused, or says that it restored something else: have it begin with nothing.
        self.counts["refused"] += 1
        slot.tokens = []
        self.ask("POST", f"/slots/{slot.number}?action=erase", None, headers)

    def save(self, store, slot, tokens, headers, turn):
        """Put what the slot holds now, when there is more of it than Weft has."""
        slot.tokens, slot.seen = [], turn
        path = self.folder / self._file(slot)
        try:
            if self.look(headers) is not store or (self.mixed and (turn is None or turn != self.turn())):
                slot.seen = None
                return
            if store.covered(tokens) >= len(tokens) // STEP * STEP:
                slot.tokens = tokens
                return
            answer = self.ask("POST", f"/slots/{slot.number}?action=save", {"filename": path.name}, headers)
            if not answer or not path.is_file():
                return
            data = path.read_bytes()
            there = file_tokens(data)
            if there is None or answer.get("n_saved") != len(there):
                return
            slot.tokens = there
            if store.put(there, data):
                self.counts["saved"] += 1
            self.why = None
        except (Error, OSError, http.client.HTTPException) as error:
            self.why = str(error)
        finally:
            path.unlink(missing_ok=True)


COMPLETIONS = ("/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions", "/completion")
NOT_ON = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "te", "upgrade"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy = None  # of the class that serve() makes

    def log_message(self, *_):
        pass

    def _headers(self):
        return {key: value for key, value in self.headers.items() if key.lower() not in NOT_ON}

    def _reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _hand_on(self, body, headers):
        """The server's answer as it comes; whether it came whole."""
        try:
            connection, answer = self.proxy.open(self.command, self.path, body, headers)
        except OSError as error:
            self._reply(502, {"error": {"message": f"llama-server does not answer: {error}", "code": 502}})
            return False
        try:
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in NOT_ON:
                    self.send_header(key, value)
            length = answer.getheader("Content-Length")
            if length is not None:
                self.send_header("Content-Length", length)
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            while data := answer.read1(1 << 16):
                self.wfile.write(data)
                self.wfile.flush()
            return answer.status == 200
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return False
        finally:
            connection.close()

    def do_GET(self):
        if self.path == "/weft":
            self._reply(200, {**self.proxy.counts, "slots": len(self.proxy.slots), "why": self.proxy.why})
            return
        self._hand_on(None, self._headers())

    do_OPTIONS = do_DELETE = do_HEAD = do_GET

    def do_POST(self):
        proxy, headers = self.proxy, self._headers()
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.close_connection = True
            self._reply(413, {"error": {"message": f"the body has {length[:20]} bytes; {BODY_MAX} are the most"}})
            return
        data = self.rfile.read(int(length))
        path = self.path.partition("?")[0]
        tokens = begun = body = None
        try:
            body = json.loads(data)
            if path in COMPLETIONS and isinstance(body, dict):
                tokens = proxy.tokens_of(path, body, headers)
                begun = proxy.begin(tokens, headers) if tokens and len(tokens) >= STEP else None
        except (ValueError, OSError, http.client.HTTPException):
            begun = None
        if begun is None:
            mixes = path == "/lora-adapters" or path.startswith("/slots/") or (
                isinstance(body, dict) and any(body.get(name) for name in ("lora", "n_cache_reuse")))
            proxy.counts["handed_on"] += 1
            proxy.other(1, mixes)
            try:
                self._hand_on(data, headers)
            finally:
                proxy.other(-1)
            return
        proxy.counts["requests"] += 1
        (slot, store, turn), whole = begun, False
        try:
            try:
                proxy.restore(store, slot, tokens, headers)
            except (OSError, http.client.HTTPException) as error:
                proxy.why, slot.tokens = str(error), []
            whole = self._hand_on(json.dumps({**body, "id_slot": slot.number, "cache_prompt": True}).encode(), headers)
        finally:
            if whole:
                threading.Thread(target=self._save, args=(proxy, store, slot, tokens, headers, turn)).start()
            else:
                slot.tokens, slot.seen = [], None
                proxy.give(slot)

    @staticmethod
    def _save(proxy, store, slot, tokens, headers, turn):
        try:
            proxy.save(store, slot, tokens, headers, turn)
        finally:
            proxy.give(slot)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # 5 otherwise: of more clients that come at once, some were reset


def serve(proxy, host="127.0.0.1", port=8081):
    """A server that is bound; call serve_forever()."""
    return Server((host, port), type("Bound", (Handler,), {"proxy": proxy}))


def main(words=None):
    parser = argparse.ArgumentParser(prog="weft-llamacpp-proxy", description="Keeps llama-server's slots in Weft.")
    parser.add_argument("--server", required=True, help="where llama-server is, as http://127.0.0.1:8080")
    parser.add_argument("--slot-save-path", required=True, help="the folder that llama-server was given so")
    parser.add_argument("--server-args", required=True,
                        help="what llama-server was started with, as it stands: the server does not tell its cache "
                             "types and rope, and they are part of what a slot is; other words are a miss")
    parser.add_argument("--model", help="the server's model file, when it is not where the server says")
    parser.add_argument("--listen", default="127.0.0.1:8081", help="HOST:PORT (127.0.0.1:8081)")
    parser.add_argument("--socket", help="the node's; this machine's")
    parser.add_argument("--salt", default="", help="slots of another salt are a miss")
    args = parser.parse_args(words)
    host, _, port = args.listen.rpartition(":")
    if not os.path.isdir(args.slot_save_path):
        parser.error(f"--slot-save-path {args.slot_save_path}: there is no such folder")
    if not args.server.startswith("http://") or not port.isdigit():
        parser.error("give --server as http://HOST:PORT and --listen as HOST:PORT")
    try:
        fabric = connect(args.socket)
        proxy = Proxy(args.server, args.slot_save_path, fabric, args.server_args, args.model, args.salt.encode())
        server = serve(proxy, host.strip("[]"), int(port))
    except (Error, OSError, ValueError, AttributeError) as error:
        sys.exit(f"weft-llamacpp-proxy: {error}")
    bound = ":".join(map(str, server.server_address[:2]))
    print(f"weft-llamacpp-proxy: {bound} for {args.server}, {len(proxy.slots)} slots", file=sys.stderr, flush=True)
    with server, fabric:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
