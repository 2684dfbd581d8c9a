# SPDX-License-Identifier: Apache-2.0
"""A FAKE of llama-server, built from its published interface (tools/server/README.md): /props, /tokenize,
/apply-template, /slots/{id}?action=save|restore|erase, /lora-adapters, /v1/chat/completions and /completion, and slot
files as llama.cpp writes them: magic, version, tokens, state.  A token is a byte.  The state has for each token which
adapters made it, and a part that is made of the tokens, so that a state which is not its tokens' is seen; the answer is
made of both, and KV is used again by its tokens alone, as the real server does.  `computed` counts the prompt's tokens
that it had to compute.
"""
import hashlib
import http.server
import json
import os
import struct
import threading
import urllib.parse


MADE = 8


def state_of(tokens):
    return b"".join(hashlib.sha256(bytes(tokens[:i])).digest() for i in range(len(tokens) + 1)) * 16


def answer_to(had):
    return hashlib.sha256(b"".join(bytes([token]) + made for token, made in had)).hexdigest()[:8]


class FakeLlamaServer:
    def __init__(self, folder, model, slots=2, packed=True):
        self.folder, self.model, self.packed = folder, model, packed
        self.slots, self.computed, self.adapters, self.lie = [[] for _ in range(slots)], 0, [], None
        self.wrong, self.requests, self.marker, self.loaded = 0, [], os.urandom(8).hex(), {}
        self.before = self.after = lambda number: None  # what happens about a completion in this slot
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def reply(self, value, status=200):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                if self.path == "/props":
                    self.reply({"total_slots": len(outer.slots), "model_path": outer.model, "build_info": "fake",
                                "media_marker": outer.marker})
                elif self.path == "/lora-adapters":
                    self.reply([dict(each) for each in outer.adapters])
                else:
                    self.reply({"error": {"code": 404}}, 404)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                url = urllib.parse.urlsplit(self.path)
                if url.path == "/lora-adapters":
                    for each in body:
                        outer.adapters[each["id"]]["scale"] = each["scale"]
                    self.reply({"success": True})
                    return
                if url.path.startswith("/slots/"):
                    action = urllib.parse.parse_qs(url.query)["action"][0]
                    self.reply(*outer.slot(int(url.path.rpartition("/")[2]), action, body))
                elif url.path == "/apply-template":
                    self.reply({"prompt": outer.template(body["messages"])})
                elif url.path == "/tokenize":
                    self.reply({"tokens": list(body["content"].encode())})
                elif body.get("stream"):
                    text = outer.complete(url.path, body)
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    for each in text:
                        self.wfile.write(f"data: {json.dumps({'content': each})}\n\n".encode())
                    self.close_connection = True
                else:
                    self.reply({"content": outer.complete(url.path, body)})

        kind = type("Server", (http.server.ThreadingHTTPServer,), {"request_queue_size": 128})
        self.server = kind(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @staticmethod
    def template(messages):
        return "".join(f"<|{each['role']}|>{each['content']}" for each in messages) + "<|assistant|>"

    def made(self, body):
        """What says which adapters make the KV of this request."""
        scales = {each["id"]: each["scale"] for each in body.get("lora") or self.adapters}
        told = []
        for adapter in self.adapters:
            with open(adapter["path"], "rb") as file:
                content = self.loaded.setdefault(adapter["path"], file.read())  # the server reads it once
            told.append((hashlib.sha256(content).hexdigest(), scales.get(adapter["id"], 0.0)))
        return hashlib.sha256(repr(told).encode()).digest()[:MADE]

    def cold(self, prompt):
        """What a server answers that has nothing."""
        return answer_to([(token, self.made({})) for token in prompt.encode()])

    def slot(self, number, action, body):
        had = self.slots[number]
        tokens = [token for token, _ in had]
        if action == "erase":
            self.slots[number] = []
            return ({"id_slot": number, "n_erased": len(tokens)},)
        path = os.path.join(self.folder, body["filename"])
        if action == "save":
            words = [-1, 1, len(tokens), *tokens, 0] if self.packed else tokens
            with open(path, "wb") as file:
                file.write(struct.pack(f"<III{len(words)}i", 0x67677371, 3, len(words), *words))
                file.write(b"".join(made for _, made in had) + state_of(tokens))
            return ({"id_slot": number, "filename": body["filename"], "n_saved": len(tokens)},)
        if self.lie == "refuse":
            return {"error": {"code": 400}}, 400
        if self.lie == "nothing":  # 200, and nothing was done: llama.cpp#26676
            return ({"id_slot": number, "filename": body["filename"], "n_restored": 0},)
        with open(path, "rb") as file:
            data = file.read()
        count = struct.unpack_from("<I", data, 8)[0]
        words = list(struct.unpack_from(f"<{count}i", data, 12))
        tokens = words[3:-1] if words[:1] == [-1] else words
        made, state = data[12 + 4 * count:][:MADE * len(tokens)], data[12 + 4 * count:][MADE * len(tokens):]
        if state != state_of(tokens):
            self.wrong += 1
        self.slots[number] = [(token, made[MADE * i:MADE * (i + 1)]) for i, token in enumerate(tokens)]
        return ({"id_slot": number, "filename": body["filename"], "n_restored": len(tokens)},)

    def complete(self, path, body):
        self.requests.append(body)
        prompt = self.template(body["messages"]) if "messages" in body else body["prompt"]
        tokens, number = list(prompt.encode()), body.get("id_slot", 0)
        self.before(number)
        had, made = self.slots[number], self.made(body)
        same = 0
        while same < min(len(had), len(tokens)) and had[same][0] == tokens[same]:
            same += 1
        self.computed += len(tokens) - same
        had = had[:same] + [(token, made) for token in tokens[same:]]
        answer = answer_to(had)
        self.slots[number] = had + [(token, made) for token in answer.encode()]
        self.after(number)
        return answer
