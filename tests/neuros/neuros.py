"""Reads events as NEUROS does, with a client and an Avro reader that this project did not write.

It stands for every consumer outside this repository: it knows the brokers, the
registry and the names of the topics, and nothing of our code or our schema files.
What it can read, others can read too.

Standard output gets one JSON object per event and nothing else; words for people and
the closing summary go to standard error.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import json
import math
import os
import sys
import time
import uuid
from collections import Counter

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

# The headers that an event may carry. Of any other header only the name is shown, so
# that a test can demand that there is none without a stray value reaching a log.
HEADERS = frozenset(
    "event_type user_id device_type priority has_triggers triggers severity source origin event_id revision traceparent".split()
)

# Exit codes.
DONE = 0
UNDECODABLE = 1
UNREACHABLE = 3

# How long Kafka may take to hand out partitions, or to say where they end.
PATIENCE_SECONDS = 60.0


class Undecodable(Exception):
    """An event that a consumer cannot read: the fault of whoever wrote it."""


class Unreachable(Exception):
    """Kafka or the registry does not answer, or has no such topic: nothing is said about the events."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="neuros",
        description=__doc__.split("\n")[0],
        epilog="Exit codes: 0 no event came for the given time, or --max was reached; 1 an event cannot be decoded; "
        "2 wrong arguments; 3 Kafka or the registry cannot be reached, or a topic does not exist.",
    )
    parser.add_argument("--brokers", default=os.environ.get("BRIDGE_KAFKA", "127.0.0.1:9092"))
    parser.add_argument("--registry", default=os.environ.get("BRIDGE_REGISTRY", "http://127.0.0.1:8081/apis/ccompat/v7"))
    parser.add_argument(
        "--topics",
        default="biometric-events,terra-biometric-events",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        help="names with commas between (default: both event topics)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        choices=["beginning", "end"],
        default="beginning",
        help="where to start; with --group only where the group has no committed offset",
    )
    parser.add_argument(
        "--until-idle",
        metavar="SECONDS",
        type=float,
        default=3.0,
        help="stop when everything has been read and no event came for so long (default: 3)",
    )
    parser.add_argument("--max", metavar="N", type=int, default=0, help="stop after N events")
    parser.add_argument("--group", help="read as a member of this group and commit; without it nothing is left behind in Kafka")
    parser.add_argument("--json", action="store_true", help="JSON on standard error too: the summary, or the error")
    parsed = parser.parse_args()
    if not parsed.topics:
        parser.error("--topics names no topic")
    if not (math.isfinite(parsed.until_idle) and parsed.until_idle >= 0):
        parser.error("--until-idle needs a number of seconds, 0 or more")
    if parsed.max < 0:
        parser.error("--max needs a number of events, 0 for no limit")
    return parsed


def plain(value):
    """A decoded Avro value as JSON can hold it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # JSON has no word for infinities and NaN; a string keeps them visible.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    raise Undecodable(f"a value of type {type(value).__name__} has no place in JSON")


def text(what: str, raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Undecodable(f"{what} is not UTF-8: {error}") from error


class Reader:
    """Decodes messages; the registry's client keeps every schema it has fetched."""

    def __init__(self, registry: str) -> None:
        client = SchemaRegistryClient({"url": registry.rstrip("/"), "timeout": 10, "max.retries": 2})
        # The id in front of the bytes names the schema; no subject need be looked up.
        self.value = AvroDeserializer(client, conf={"subject.name.strategy": lambda *_: None})

    def event(self, message) -> dict:
        headers: dict[str, str | list | None] = {}
        others: list[str] = []
        for name, raw in message.headers() or []:
            if name not in HEADERS:
                others.append(name)
                continue
            decoded = text(f"the header {name}", raw)
            if name in headers:
                # Kafka allows a header twice, an event does not: shown as a list, it cannot be overlooked.
                earlier = headers[name]
                headers[name] = [*(earlier if isinstance(earlier, list) else [earlier]), decoded]
            else:
                headers[name] = decoded
        event = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": text("the key", message.key()),
            "headers": headers,
            "value": self.decoded(message),
        }
        if others:
            event["other_headers"] = others
        return event

    def decoded(self, message):
        raw = message.value()
        if raw is None:
            return None
        try:
            return plain(self.value(raw, SerializationContext(message.topic(), MessageField.VALUE)))
        except Undecodable:
            raise
        except SchemaRegistryError as error:
            # An id that the registry does not know is the writer's fault, a registry that fails is not.
            if error.http_status_code == 404:
                raise Undecodable(f"the registry has no schema with the id {int.from_bytes(raw[1:5], 'big')}") from error
            raise Unreachable(f"the registry answered {error}") from error
        except Exception as error:  # Each Avro library has its own errors for bytes that are not Avro.
            if type(error).__module__.startswith(("httpx", "httpcore", "requests")) or isinstance(error, OSError):
                raise Unreachable(f"the registry does not answer: {error}") from error
            raise Undecodable(f"{type(error).__name__}: {error}") from error


class Subscription:
    """What is being read, and how much of it has been read to its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failure: KafkaError | None = None
        self.assigned: set[tuple[str, int]] = set()
        self.at_end: set[tuple[str, int]] = set()
        self.changed = time.monotonic()
        self.consumer = Consumer(
            {
                "bootstrap.servers": options.brokers,
                "group.id": options.group or f"neuros-{uuid.uuid4()}",
                "client.id": "neuros",
                # An event of an aborted transaction never happened.
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest" if options.start == "beginning" else "latest",
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "error_cb": self.note,
                # librdkafka's own log would mix into standard error's JSON.
                "log_level": 0,
            }
        )
        partitions = self.partitions()
        if options.group:
            self.consumer.subscribe(options.topics, on_assign=self.gained, on_revoke=self.revoked, on_lost=self.lost)
        else:
            start = OFFSET_BEGINNING if options.start == "beginning" else OFFSET_END
            self.consumer.assign([TopicPartition(topic, number, start) for topic, number in sorted(partitions)])
            self.assigned = partitions

    def partitions(self) -> set[tuple[str, int]]:
        found = set()
        for topic in self.options.topics:
            try:
                known = self.consumer.list_topics(topic, timeout=15).topics[topic]
            except KafkaException as error:
                raise Unreachable(f"Kafka does not answer at {self.options.brokers}: {error.args[0].str()}") from error
            if known.error is not None or not known.partitions:
                raise Unreachable(f"the topic {topic} does not exist at {self.options.brokers}")
            found.update((topic, number) for number in known.partitions)
        return found

    def note(self, error: KafkaError) -> None:
        # The client mends what it can; the last word counts only if it gives up.
        self.failure = error

    def gained(self, _consumer, partitions) -> None:
        self.assigned.update((each.topic, each.partition) for each in partitions)
        self.changed = time.monotonic()

    def revoked(self, consumer, partitions) -> None:
        # The next owner must not print what has been printed here.
        self.commit()
        self.lost(consumer, partitions)

    def commit(self) -> None:
        try:
            self.consumer.commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:
                raise

    def lost(self, _consumer, partitions) -> None:
        gone = {(each.topic, each.partition) for each in partitions}
        self.assigned -= gone
        self.at_end -= gone
        self.changed = time.monotonic()

    def messages(self):
        """Yields messages until nothing came for the given time after the end of every partition."""
        while True:
            message = self.consumer.poll(0.1)
            now = time.monotonic()
            if message is None:
                pass
            elif message.error() is None:
                self.at_end.discard((message.topic(), message.partition()))
                self.changed = now
                yield message
                # Printing takes time too, and must not count as idleness.
                self.changed = time.monotonic()
            elif message.error().code() == KafkaError._PARTITION_EOF:
                place = (message.topic(), message.partition())
                if place in self.assigned:
                    self.at_end.add(place)
            elif not message.error().retriable():
                raise Unreachable(f"Kafka: {message.error().str()}")
            quiet = now - self.changed
            complete = bool(self.assigned) and self.at_end >= self.assigned
            if complete and quiet >= self.options.until_idle:
                return
            if not complete and quiet >= max(PATIENCE_SECONDS, self.options.until_idle):
                why = self.failure.str() if self.failure else "the group got no partition, or a partition has no end"
                raise Unreachable(f"nothing more came from Kafka within {quiet:.0f} s: {why}")


def read(options: argparse.Namespace, counts: Counter) -> None:
    reader = Reader(options.registry)
    subscription = Subscription(options)
    try:
        for message in subscription.messages():
            try:
                event = reader.event(message)
            except (Undecodable, Unreachable) as error:
                where = f"{message.topic()} partition {message.partition()} offset {message.offset()}"
                raise type(error)(f"{where}: {error}") from error
            print(json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")), flush=True)
            counts[message.topic()] += 1
            if options.group:
                # Only what was printed counts as read, also when the next event cannot be.
                subscription.consumer.store_offsets(message=message)
            if options.max and counts.total() >= options.max:
                break
    finally:
        try:
            if options.group:
                subscription.commit()
        finally:
            subscription.consumer.close()


def closing(options: argparse.Namespace, words: str, fields: dict) -> None:
    print(json.dumps(fields) if options.json else f"neuros: {words}", file=sys.stderr, flush=True)


def main() -> int:
    options = arguments()
    counts: Counter = Counter()
    try:
        read(options, counts)
    except Undecodable as error:
        closing(options, f"cannot decode {error}", {"error": "undecodable", "message": str(error), "events": counts.total()})
        return UNDECODABLE
    except (Unreachable, KafkaException) as error:
        closing(options, str(error), {"error": "unreachable", "message": str(error), "events": counts.total()})
        return UNREACHABLE
    closing(options, f"{counts.total()} events read", {"events": counts.total(), "topics": dict(counts)})
    return DONE


if __name__ == "__main__":
    sys.exit(main())
