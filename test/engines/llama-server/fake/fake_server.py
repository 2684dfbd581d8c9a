# SPDX-License-Identifier: Apache-2.0
"""A FAKE of llama-server, built from its published interface (tools/server/README.md): /props, /tokenize,
/apply-template, /slots/{id}?action=save|restore|erase, /v1/chat/completions and /completion, and slot files as
llama.cpp writes them: magic, version, tokens, state.  A token is a byte; the state is made of the tokens, so that a
slot's state which is not its tokens' is seen.  `computed` counts the prompt's tokens that it had to compute.
"""
import hashlib
import http.server
import json
import os
import struct
import threading
import urllib.parse


def state_of(tokens):
    return b"".join(hashlib.sha256(bytes(tokens[:i])).digest() for i in range(len(tokens) + 1)) * 16


class FakeLlamaServer:
    def __init__(self, folder, model, slots=2, packed=True):
        self.folder, self.model, self.packed = folder, model, packed
        self.slots, self.computed, self.adapters, self.lie = [[] for _ in range(slots)], 0, [], None
        self.wrong, self.requests, self.marker = 0, [], os.urandom(8).hex()
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

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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

    def slot(self, number, action, body):
        tokens = self.slots[number]
        if action == "erase":
            self.slots[number] = []
            return ({"id_slot": number, "n_erased": len(tokens)},)
        path = os.path.join(self.folder, body["filename"])
        if action == "save":
            words = [-1, 1, len(tokens), *tokens, 0] if self.packed else tokens
            with open(path, "wb") as file:
                file.write(struct.pack(f"<III{len(words)}i", 0x67677371, 3, len(words), *words) + state_of(tokens))
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
        if data[12 + 4 * count:] != state_of(tokens):
            self.wrong += 1
        self.slots[number] = tokens
        return ({"id_slot": number, "filename": body["filename"], "n_restored": len(tokens)},)

    def complete(self, path, body):
        self.requests.append(body)
        prompt = self.template(body["messages"]) if "messages" in body else body["prompt"]
        tokens = list(prompt.encode())
        number = body.get("id_slot", 0)
        had = self.slots[number]
        same = 0
        while same < min(len(had), len(tokens)) and had[same] == tokens[same]:
            same += 1
        self.computed += len(tokens) - same
        answer = hashlib.sha256(bytes(tokens)).hexdigest()[:8]
        self.slots[number] = tokens + list(answer.encode())
        return answer
