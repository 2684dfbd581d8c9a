# SPDX-License-Identifier: Apache-2.0
"""Waiting for blocks without standing in an event loop's way: a thread waits, the loop goes on."""
import asyncio


async def layer(pins, number):
    """Wait until `number` is readable in every held block: `await pins.layer(number)`."""
    if pins.loading < pins.blocks:
        await asyncio.to_thread(pins.wait_layer, number)
    else:
        pins.wait_layer(number)


async def block(pins, number):
    """Wait until all of one held block is readable: `await pins.block(number)`."""
    if pins.loading <= number < pins.blocks:
        await asyncio.to_thread(pins.wait_block, number)
    else:
        pins.wait_block(number)
