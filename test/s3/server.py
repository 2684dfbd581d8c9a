#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An S3 server for tests: OpenStack Swift with its s3api, all of it in one process on loopback.

    server.py DIRECTORY [BUCKET]...     serves until its standard input ends; DIRECTORY is its own,
                                        and it begins with these buckets

Nothing of it is emulated: proxy, object, container and account servers are Swift's own, containers
are SQLite files under DIRECTORY, objects lie in memory, and every request's signature
(AWS4-HMAC-SHA256) is verified.  When it can answer it prints one line, `ready PORT`.  Its one user
has the key `test:tester` and the secret `testing`.  A dictionary stands in for memcached.
"""
import eventlet

eventlet.monkey_patch()

import logging
import os
import socket
import sys
import urllib.request

from eventlet import wsgi
from swift.account.server import AccountController
from swift.common import utils
from swift.common.ring import RingBuilder
from swift.common.wsgi import loadapp
from swift.container.server import ContainerController
from swift.obj.mem_server import ObjectController

CONFIG = """
[DEFAULT]
swift_dir = {place}
log_level = ERROR

[pipeline:main]
pipeline = catch_errors shared s3api tempauth slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:shared]
paste.filter_factory = __main__:shared

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
check_bucket_owner = false

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin

[filter:slo]
use = egg:swift#slo
"""


class Shared:
    """What Swift asks of memcached, without expiry: this process is the only one there is."""

    def __init__(self):
        self.values = {}

    def get(self, key, raise_on_error=False):
        return self.values.get(key)

    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        self.values[key] = value

    def incr(self, key, delta=1, time=0):
        self.values[key] = max(0, self.values.get(key, 0) + delta)
        return self.values[key]

    def delete(self, key, server_key=None):
        self.values.pop(key, None)


def shared(global_conf, **local_conf):
    """paste's factory of a filter that puts the dictionary where Swift looks for memcached."""
    cache = Shared()

    def wrap(app):
        def serve(env, start_response):
            env["swift.cache"] = cache
            return app(env, start_response)

        return serve

    return wrap


def listen():
    """A socket on loopback whose connections do not hold small writes back for an acknowledgement."""
    sock = eventlet.listen(("127.0.0.1", 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def make_ring(place, name, port):
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1",
                     "port": port, "device": "d", "meta": ""})
    builder.rebalance()
    builder.get_ring().save(os.path.join(place, name + ".ring.gz"))


def make_buckets(port, names):
    """Through Swift's own interface, whose containers are the buckets."""
    whole = f"http://127.0.0.1:{port}"
    login = urllib.request.Request(whole + "/auth/v1.0", headers={"X-Storage-User": "test:tester",
                                                                  "X-Storage-Pass": "testing"})
    with urllib.request.urlopen(login) as answer:
        token = answer.headers["X-Auth-Token"]
    for name in names:
        urllib.request.urlopen(urllib.request.Request(f"{whole}/v1/AUTH_test/{name}", method="PUT",
                                                      headers={"X-Auth-Token": token})).close()


def main():
    place = os.path.abspath(sys.argv[1])
    os.makedirs(os.path.join(place, "d"), exist_ok=True)
    with open(os.path.join(place, "swift.conf"), "w", encoding="ascii") as file:
        file.write("[swift-hash]\nswift_hash_path_suffix = weft\n")
    with open(os.path.join(place, "proxy.conf"), "w", encoding="ascii") as file:
        file.write(CONFIG.format(place=place))
    utils.set_swift_dir(place)
    logging.getLogger().addHandler(logging.NullHandler())

    conf = {"devices": place, "swift_dir": place, "mount_check": "false", "log_level": "ERROR",
            "fallocate_reserve": "0"}
    quiet = {"log": logging.getLogger("quiet"), "log_output": False, "debug": False}
    for name, controller in (("account", AccountController), ("container", ContainerController),
                             ("object", ObjectController)):
        sock = listen()
        make_ring(place, name, sock.getsockname()[1])
        eventlet.spawn(wsgi.server, sock, controller(conf), **quiet)
    sock = listen()
    eventlet.spawn(wsgi.server, sock, loadapp(os.path.join(place, "proxy.conf")), **quiet)
    make_buckets(sock.getsockname()[1], sys.argv[2:])
    print("ready", sock.getsockname()[1], flush=True)
    while eventlet.tpool.execute(os.read, 0, 4096):
        pass


if __name__ == "__main__":
    main()
