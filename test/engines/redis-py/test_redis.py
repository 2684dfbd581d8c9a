# SPDX-License-Identifier: Apache-2.0
"""redis-py, both of its clients in both protocols, and Redis's own programs where they are, before weftd's gateway."""
import asyncio
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import unittest

import redis
import redis.asyncio
import redis.asyncio.retry
from node import Node
from redis.backoff import ConstantBackoff
from redis.retry import Retry

MIB = 1 << 20
SIZES = (0, 1, 4095, 4096, 4097, 65536, MIB + 3, 4 * MIB, 4 * MIB + 1)


def value(size, seed=1):
    return random.Random(f"{size} {seed}").randbytes(size)


class Case(unittest.TestCase):
    NODE = {"pool": "512MB"}

    @classmethod
    def setUpClass(cls):
        cls.node = Node(resp=True, **cls.NODE)
        cls.addClassCleanup(cls.node.close)

    def client(self, **how):
        client = redis.Redis("127.0.0.1", self.node.resp_port, **how)
        self.addCleanup(client.close)
        return client


class Sync:
    """Of both protocols, on a database of its own that is empty when a test begins."""

    PROTOCOL = 0

    def client(self, **how):
        return super().client(**{"protocol": self.PROTOCOL, "db": self.PROTOCOL, **how})

    def setUp(self):
        self.client().flushdb()

    def test_values_of_all_sizes(self):
        client = self.client()
        for size in SIZES:
            name = f"{self.id()}{size}".encode() + b"\0\r\n\xff"
            self.assertIs(client.set(name, value(size)), True)
            self.assertEqual(client.get(name), value(size))
            self.assertEqual(client.strlen(name), size)
            self.assertEqual(client.exists(name, name, "none"), 2)
            client.set(name, value(size, 2))
            self.assertEqual(client.get(name), value(size, 2))
            self.assertEqual(client.delete(name), 1)
            self.assertIsNone(client.get(name))

    def test_a_value_of_64_mb(self):
        client = self.client()
        large = value(64 * MIB)
        client.set("large", large)
        self.assertEqual(client.strlen("large"), len(large))
        self.assertTrue(client.get("large") == large)  # not assertEqual: nobody wants to see the difference
        self.assertEqual(client.unlink("large"), 1)

    def test_several_at_once(self):
        client = self.client()
        there = {f"k{i}": value(SIZES[i % 7], i) for i in range(20)}
        client.mset(there)
        asked = [f"k{i}" for i in range(25)] + ["k3"]
        self.assertEqual(client.mget(asked), [there.get(name) for name in asked])
        self.assertEqual(client.exists(*asked), 21)

    def test_conditions(self):
        client = self.client()
        self.assertIsNone(client.set("a", "1", xx=True))
        self.assertIs(client.set("a", "1", nx=True), True)
        self.assertIsNone(client.set("a", "2", nx=True))
        self.assertEqual(client.set("a", "2", get=True), b"1")
        self.assertIs(client.setnx("a", "3"), False)
        self.assertEqual(client.getset("a", "4"), b"2")
        self.assertEqual(client.getdel("a"), b"4")
        self.assertEqual(client.type("a"), b"none")

    def test_time_takes_them(self):
        client = self.client()
        client.set("a", value(100000), px=200)
        client.set("b", "1", ex=100)
        self.assertGreater(client.ttl("b"), 90)
        self.assertIs(client.persist("b"), True)
        self.assertEqual((client.ttl("b"), client.ttl("none")), (-1, -2))
        client.set("c", "1", ex=100)
        self.assertIs(client.pexpire("c", 200), True)
        self.assertEqual(client.expireat("b", int(time.time()) + 100), True)
        until = time.monotonic() + 60
        while client.exists("a", "c") and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual((client.get("a"), client.get("c"), client.get("b")), (None, None, b"1"))

    def test_a_scan_meets_every_key(self):
        client = self.client()
        names = {f"some:{i}".encode() for i in range(1000)}
        client.mset({name: "x" for name in names})
        client.mset({f"other:{i}": "x" for i in range(100)})
        self.assertEqual(client.dbsize(), 1100)
        self.assertEqual(set(client.scan_iter(match="some:*", count=50)), names)
        self.assertEqual(len(set(client.scan_iter())), 1100)
        with self.assertRaisesRegex(redis.ResponseError, "use SCAN"):
            client.keys("*")

    def test_pipelines(self):
        client = self.client()
        with client.pipeline(transaction=False) as pipe:
            for i in range(500):
                pipe.set(f"p{i}", value(i * 40, i))
                pipe.get(f"p{i}")
                pipe.get(f"none{i}")
            said = pipe.execute()
        self.assertEqual(said, [each for i in range(500) for each in (True, value(i * 40, i), None)])
        with client.pipeline(transaction=False) as pipe:  # a mistake stays where it is
            pipe.set("a", "1").execute_command("NOSUCH", "x").get("a")
            said = pipe.execute(raise_on_error=False)
        self.assertIsInstance(said[1], redis.ResponseError)
        self.assertEqual((said[0], said[2]), (True, b"1"))
        with client.pipeline() as pipe, self.assertRaisesRegex(redis.ResponseError, "EXEC.*transaction=False"):
            pipe.set("a", "2").execute()  # there are no transactions, and one is told so

    def test_texts(self):
        client = self.client(decode_responses=True)
        client.set("gr\u00fc\u00dfe", "\u4e16\u754c")
        self.assertEqual(client.get("gr\u00fc\u00dfe"), "\u4e16\u754c")
        self.assertEqual(client.mget(["gr\u00fc\u00dfe", "none"]), ["\u4e16\u754c", None])
        self.assertEqual(list(client.scan_iter()), ["gr\u00fc\u00dfe"])
        self.assertIsInstance(client.info()["redis_version"], str)

    def test_a_pool_of_connections(self):
        client = self.client(max_connections=16)
        wrong = []

        def work(number):
            mine = random.Random(number)
            for _ in range(60):
                name, size = f"t{number}.{mine.randrange(8)}", mine.choice((10, 5000, 300000))
                client.set(name, value(size, number))
                if client.get(name) != value(size, number):
                    wrong.append(name)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_databases_are_apart(self):
        one, other = self.client(db=1), self.client(db=2)
        one.set("a", "1")
        other.set("a", "2")
        self.assertEqual((one.get("a"), other.get("a")), (b"1", b"2"))
        other.flushdb()
        self.assertEqual((one.get("a"), other.get("a")), (b"1", None))
        with self.assertRaisesRegex(redis.ResponseError, "out of range"):
            self.client(db=16).ping()

    def test_what_clients_ask_besides(self):
        client = self.client(client_name="tests")
        self.assertIs(client.ping(), True)
        self.assertEqual(client.echo("x"), b"x")
        self.assertIn("redis_version", client.info())
        self.assertIn("weft_sets_dropped", client.info("stats"))
        self.assertIn(client.client_getname(), ("tests", b"tests"))
        self.assertIsInstance(client.client_id(), int)
        self.assertIn("get", client.command())
        self.assertEqual(len(client.time()), 2)
        client.set("a", "1")
        self.assertGreater(client.memory_usage("a"), 0)
        with self.assertRaisesRegex(redis.ResponseError, "unknown command 'LPUSH'"):
            client.lpush("list", "x")

    def test_no_answer_is_lost_by_a_timeout(self):
        """A client that gave up on an answer must not take it for that of its next question."""
        client = self.client(socket_timeout=0.0005, retry=Retry(ConstantBackoff(0), 0))
        writer = self.client()
        for i in range(4):
            writer.set(f"t{i}", value(8 * MIB, i))
        for i in range(40):
            try:
                self.assertTrue(client.get(f"t{i % 4}") == value(8 * MIB, i % 4))
            except (redis.TimeoutError, redis.ConnectionError):
                pass
        self.assertTrue(writer.get("t3") == value(8 * MIB, 3))


class Resp2(Sync, Case):
    PROTOCOL = 2


class Resp3(Sync, Case):
    PROTOCOL = 3


class Async(Case):
    def test_both_protocols(self):
        async def work(protocol):
            client = redis.asyncio.Redis(host="127.0.0.1", port=self.node.resp_port, protocol=protocol, db=protocol)
            async with client:
                await client.flushdb()
                for size in SIZES:
                    await client.set(f"a{size}", value(size))
                    self.assertEqual(await client.get(f"a{size}"), value(size))
                self.assertEqual(await client.mget(["a1", "none", "a4097"]), [value(1), None, value(4097)])
                async with client.pipeline(transaction=False) as pipe:
                    for i in range(200):
                        pipe.set(f"p{i}", value(i * 100, i)).get(f"p{i}")
                    said = await pipe.execute()
                self.assertEqual(said, [each for i in range(200) for each in (True, value(i * 100, i))])
                names = {name async for name in client.scan_iter(match="p*", count=20)}
                self.assertEqual(names, {f"p{i}".encode() for i in range(200)})
                self.assertEqual(await client.delete(*names), 200)
        for protocol in (2, 3):
            with self.subTest(protocol=protocol):
                asyncio.run(work(protocol))

    def test_many_at_once(self):
        async def one(client, number):
            for i in range(10):
                size = (20, 6000, 200000)[(number + i) % 3]
                await client.set(f"m{number}.{i}", value(size, number))
                self.assertEqual(await client.get(f"m{number}.{i}"), value(size, number))

        async def work():
            pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=self.node.resp_port, max_connections=20,
                                                        timeout=60)
            async with redis.asyncio.Redis.from_pool(pool) as client:
                await asyncio.gather(*(one(client, number) for number in range(60)))
        asyncio.run(work())

    def test_who_gives_up_in_the_middle(self):
        async def work():
            async with redis.asyncio.Redis(host="127.0.0.1", port=self.node.resp_port) as client:
                await client.set("large", value(32 * MIB))
                for _ in range(5):
                    task = asyncio.create_task(client.get("large"))
                    await asyncio.sleep(0.003)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(await client.get("large") == value(32 * MIB))
        asyncio.run(work())


class Passwords(Case):
    """redis-py tries again after a refusal, for seconds, unless it is told not to."""

    NODE = {"settings": ("resp.password=0123456789abcdef", "domains=default,guest",
                         "domain.guest.token=guest-0123456789")}

    def client(self, **how):
        return super().client(retry=Retry(ConstantBackoff(0), 0), **how)

    def test_who_is_let_in(self):
        for protocol in (2, 3):
            with self.subTest(protocol=protocol):
                with self.assertRaises(redis.AuthenticationError):
                    self.client(protocol=protocol).ping()
                with self.assertRaises(redis.AuthenticationError):
                    self.client(protocol=protocol, password="wrong").ping()
                with self.assertRaises(redis.AuthenticationError):
                    self.client(protocol=protocol, username="guest", password="0123456789abcdef").ping()
                owner = self.client(protocol=protocol, password="0123456789abcdef")
                guest = self.client(protocol=protocol, username="guest", password="guest-0123456789")
                named = self.client(protocol=protocol, username="default", password="0123456789abcdef")
                owner.set("a", "1")
                self.assertIsNone(guest.get("a"))
                guest.set("a", "2")
                self.assertEqual((owner.get("a"), named.get("a"), guest.get("a")), (b"1", b"1", b"2"))
                self.assertEqual(guest.delete("a"), 1)
                self.assertEqual(owner.get("a"), b"1")

    def test_by_address(self):
        client = redis.from_url(f"redis://guest:guest-0123456789@127.0.0.1:{self.node.resp_port}/3")
        self.addCleanup(client.close)
        client.set("b", "1")
        self.assertEqual(client.get("b"), b"1")


class Restarts(Case):
    def test_a_client_goes_on(self):
        """What was there is a miss, not an error and not something else."""
        for protocol in (2, 3):
            with self.subTest(protocol=protocol):
                client = self.client(protocol=protocol, retry=Retry(ConstantBackoff(0.05), 200),
                                     retry_on_error=[redis.ConnectionError])
                client.set("a", value(100000))
                client.set("b", "1")
                for number in (signal.SIGKILL, signal.SIGTERM):
                    self.node.process.send_signal(number)
                    self.node.process.wait(60)
                    starts = threading.Timer(0.2, self.node.start)
                    starts.start()
                    try:
                        self.assertEqual(client.mget("a", "b"), [None, None])
                        client.set("a", value(100000, 2))
                        self.assertEqual(client.get("a"), value(100000, 2))
                    finally:
                        starts.join()

    def test_an_asyncio_client_goes_on(self):
        async def work():
            client = redis.asyncio.Redis(host="127.0.0.1", port=self.node.resp_port,
                                         retry=redis.asyncio.retry.Retry(ConstantBackoff(0.05), 200))
            async with client:
                await asyncio.gather(*(client.set(f"a{i}", value(5000, i)) for i in range(20)))
                self.node.kill()
                self.node.start()
                self.assertEqual(await asyncio.gather(*(client.get(f"a{i}") for i in range(20))), [None] * 20)
        asyncio.run(work())


class Full(Case):
    NODE = {"pool": "64MB"}

    def test_a_cache_forgets_and_never_lies(self):
        client, there = self.client(), 0
        for i in range(100):
            self.assertIs(client.set(f"f{i}", value(MIB, i)), True)
        for i in range(100):
            got = client.get(f"f{i}")
            self.assertTrue(got is None or got == value(MIB, i))
            there += got is not None
        self.assertTrue(20 < there < 100, there)


class Programs(Case):
    """redis-cli and redis-benchmark, where they are."""

    def program(self, name, *words, said=None):
        where = shutil.which(name)
        if where is None:
            self.skipTest(f"there is no {name} on PATH")
        done = subprocess.run([where, "-p", str(self.node.resp_port), *words], capture_output=True, timeout=300,
                              input=said, check=True, env={**os.environ, "REDISCLI_HISTFILE": "/dev/null"})
        return done.stdout

    def test_redis_cli(self):
        for protocol in ("-2", "-3"):
            large = value(5 * MIB)
            self.assertEqual(self.program("redis-cli", protocol, "-x", "set", "cli", said=large), b"OK\n")
            self.assertEqual(self.program("redis-cli", protocol, "get", "cli"), large + b"\n")
            self.assertEqual(self.program("redis-cli", protocol, "mget", "cli2", "cli3"), b"\n\n")
            self.assertIn(b"cli", self.program("redis-cli", protocol, "--scan").split())
            self.assertIn(b"weft_sets_dropped", self.program("redis-cli", protocol, "info"))

    def test_redis_benchmark(self):
        for words in (("-t", "set,get,mset", "-n", "20000", "-P", "16"), ("-t", "set,get", "-n", "300", "-d", "200000"),
                      ("-t", "ping,set,get", "-n", "5000", "-c", "200", "--threads", "2")):
            self.assertIn(b"SET", self.program("redis-benchmark", "-q", *words))


if __name__ == "__main__":
    unittest.main()
