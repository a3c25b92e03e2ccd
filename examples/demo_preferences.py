"""What `make demo-preferences` runs: a thousand users in five zones, and two days in seconds.

The server runs in this process, by a clock that jumps from one due time to the next. All else goes
through the client, as another program would do it. The clocks of Berlin go forward on the first of
the two days, in the hour in which most of its users wish to be served.
"""

from __future__ import annotations

import asyncio
import csv
import fcntl
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from batchwork.v1.batch_service_pb2 import BATCH_EVENT_KIND_PROGRESS
from batchwork.v1.item_pb2 import ItemState
from batchwork.v1.job_service_pb2 import Occurrence
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import UserDecision, UserPeriod
from batchwork.v1.schedule_pb2 import DailyCadence, DueRule, Schedule, Weekday, WeeklyCadence
from batchwork_client import Batchwork, BatchworkError, connect
from batchwork_server.bootstrap import serving
from batchwork_server.config import Settings
from batchwork_server.errors import BatchworkError as ServerError
from batchwork_server.logs import configure_logs
from batchwork_server.setting_kinds import Secret

from examples.jumping_clock import JumpingClock
from examples.preference_ledger import (
    NOT_DUE,
    OPTED_OUT,
    Ledger,
    cadence_in_words,
    local,
    read_ledger,
)
from examples.server_process import ROOT, ServerProcessError, load

FOLDER = Path(".demo") / "preferences"
DATABASE = FOLDER / "batchwork.db"
LOG = FOLDER / "server.log"
ACCOUNTS = ROOT / "examples" / "accounts"
EXAMPLE = ROOT / "examples" / "preferences"
JOB_ID = "bat_demo_daily_post_20260328_b2c3d4e5"
FEATURE = "reach_posts"

BEGIN = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
END = datetime(2026, 3, 30, 20, 0, tzinfo=UTC)
"""Between the two, every zone has all its due times of both days, and none of another day."""

DAYS = (date(2026, 3, 29), date(2026, 3, 30))


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Some users of a city, and when they wish to be served."""

    city: str
    zone: str
    at: str
    users: slice
    weekly_on: Weekday.ValueType | None = None

    @property
    def schedule(self) -> Schedule:
        if self.weekly_on is None:
            return Schedule(time_zone=self.zone, daily=DailyCadence(at=self.at))
        weekly = WeeklyCadence(days=[self.weekly_on], at=self.at)
        return Schedule(time_zone=self.zone, weekly=weekly)


NIGHT = Wish(city="berlin", zone="Europe/Berlin", at="02:30", users=slice(0, 120))
EVENING = Wish(city="berlin", zone="Europe/Berlin", at="18:00", users=slice(120, 170))
BREAKFAST = Wish(city="new_york", zone="America/New_York", at="08:30", users=slice(0, 150))
MORNING = Wish(city="tokyo", zone="Asia/Tokyo", at="09:00", users=slice(0, 100))
LATE = Wish(city="tokyo", zone="Asia/Tokyo", at="21:00", users=slice(100, 200))
WISHES = (
    NIGHT,
    EVENING,
    Wish(
        city="berlin",
        zone="Europe/Berlin",
        at="09:00",
        users=slice(170, 200),
        weekly_on=Weekday.WEEKDAY_SUNDAY,
    ),
    BREAKFAST,
    Wish(city="new_york", zone="America/New_York", at="12:30", users=slice(150, 200)),
    Wish(city="kolkata", zone="Asia/Kolkata", at="07:15", users=slice(0, 200)),
    MORNING,
    LATE,
    Wish(city="sao_paulo", zone="America/Sao_Paulo", at="06:00", users=slice(0, 150)),
    Wish(
        city="sao_paulo",
        zone="America/Sao_Paulo",
        at="10:00",
        users=slice(150, 200),
        weekly_on=Weekday.WEEKDAY_MONDAY,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Some users who wish something else from a moment on."""

    moment: datetime
    users: tuple[str, ...]
    wish: Wish
    meaning: str


async def demo() -> bool:
    """Runs the demo, and tells whether its table adds up.

    Raises:
        ServerProcessError: the loader refused.
        BatchworkError: a call was refused, or the server fell silent.
    """
    start_from_scratch()
    people = write_people()
    environment = {"BATCHWORK_DATABASE_URL": f"sqlite:///{DATABASE.absolute()}"}
    heading(f"Load {sum(map(len, people.values()))} accounts of {len(people)} cities")
    say(await load("users", str((FOLDER / "users.csv").absolute()), settings=environment))
    accounts = str((FOLDER / "accounts.csv").absolute())
    say(await load("category", "users", accounts, settings=environment))

    clock = JumpingClock(BEGIN)
    async with server(clock) as target, connect(target) as batchwork:
        heading("Import a job that preferences drive, and say what each user wishes")
        await batchwork.jobs.import_jobs(EXAMPLE / "jobs.json")
        await set_preferences(batchwork, people)
        await show_forecast(batchwork)

        heading("Two days pass")
        await live_through(batchwork, clock, moves=moves_of(people))
        await explain(
            batchwork,
            people[NIGHT.city][0],
            people[LATE.city][LATE.users][0],
            await who_opted_out(batchwork),
        )

        heading("In the end")
        ledger = await read_ledger(batchwork, job_id=JOB_ID, feature_type=FEATURE, days=DAYS)
    show_table(ledger)
    return adds_up(ledger)


def start_from_scratch() -> None:
    """Removes the database of an earlier demo, unless a server still works on it.

    Raises:
        ServerProcessError: a server does.
    """
    FOLDER.mkdir(exist_ok=True, parents=True)
    with Path(f"{DATABASE}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServerProcessError(f"A server uses {DATABASE}; stop it first.") from error
        for suffix in ("", "-wal", "-shm"):
            Path(f"{DATABASE}{suffix}").unlink(missing_ok=True)


def write_people() -> dict[str, list[str]]:
    """Writes each account of the example once for each city, and returns the users by city.

    A few of the accounts are no users, and one is inactive; so it is in each city.
    """
    cities = list(dict.fromkeys(wish.city for wish in WISHES))
    names = [row[0] for row in _write_for_each(cities, "accounts.csv")]
    _write_for_each(cities, "users.csv")
    return {city: [f"{name}.{city}" for name in names] for city in cities}


def _write_for_each(cities: Sequence[str], file: str) -> list[list[str]]:
    """Writes the rows of an example's file once for each city, and returns those that it has."""
    with (ACCOUNTS / file).open(encoding="utf-8", newline="") as source:
        headings, *rows = csv.reader(source)
    with (FOLDER / file).open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(headings)
        writer.writerows([f"{row[0]}.{city}", *row[1:]] for city in cities for row in rows)
    return rows


@asynccontextmanager
async def server(clock: JumpingClock) -> AsyncIterator[str]:
    """Runs a server by this clock for as long as the block does, and yields its address."""
    settings = Settings(
        database_url=Secret(f"sqlite:///{DATABASE.absolute()}"),
        listen="127.0.0.1:0",
        templates_dir=EXAMPLE / "templates",
        max_concurrent_items=20,
        chunk_size=10,
    )
    with LOG.open("w", encoding="utf-8") as log:
        configure_logs(stream=log)
        async with serving(settings, clock=clock) as running:
            yield f"127.0.0.1:{running.port}"


async def set_preferences(batchwork: Batchwork, people: dict[str, list[str]]) -> None:
    preferences = [
        Preference(user_id=user_id, feature_type=FEATURE, enabled=True, schedule=wish.schedule)
        for wish in WISHES
        for user_id in people[wish.city][wish.users]
    ]
    answer = await batchwork.preferences.batch_set_preferences(preferences)
    say(f"{len(answer.results)} users, in {len({r.group_joined for r in answer.results})} groups.")
    groups = batchwork.preferences.list_preference_groups(feature_type=FEATURE)
    async for group in groups:
        for run in group.next_runs:
            if DueRule.DUE_RULE_GAP in run.rules:
                say(
                    f"{run.scheduled_local_time.replace('T', ' ')} does not exist in"
                    f" {run.time_zone}: its {group.member_count} users are served at"
                    f" {run.local_time.replace('T', ' ')}."
                )


async def show_forecast(batchwork: Batchwork) -> None:
    heading("What the server foretells (each # is ten users)")
    foretold = await batchwork.preferences.forecast_load(
        feature_type=FEATURE, start_time=BEGIN, end_time=END, bucket=timedelta(hours=1)
    )
    for bucket in foretold.buckets:
        if bucket.user_count:
            hour = bucket.start_time.ToDatetime()
            bar = "#" * -(-bucket.user_count // 10)
            say(f"{hour:%a %H:%M} UTC  {bucket.user_count:4}  {bar}")
    say(f"{foretold.user_count} users in {foretold.run_count} runs.")


def moves_of(people: dict[str, list[str]]) -> list[Move]:
    return [
        Move(
            moment=datetime(2026, 3, 29, 6, 0, tzinfo=UTC),
            users=tuple(people[LATE.city][LATE.users][:5]),
            wish=MORNING,
            meaning="09:00 is over today, so that they are guests of their old group once more",
        ),
        Move(
            moment=datetime(2026, 3, 29, 13, 0, tzinfo=UTC),
            users=tuple(people[NIGHT.city][NIGHT.users][:5]),
            wish=EVENING,
            meaning="they had their run of today, and have no second one",
        ),
    ]


async def live_through(batchwork: Batchwork, clock: JumpingClock, *, moves: list[Move]) -> None:
    """Jumps from due time to due time, and lets users move between them."""
    opted_out = False
    while (found := await next_due(batchwork)) is not None and found[0] < END:
        due, group_keys = found
        while moves and moves[0].moment <= due:
            move = moves.pop(0)
            clock.jump_to(move.moment)
            await make(batchwork, move)
        clock.jump_to(due)
        for run in await fired(batchwork, clock, due=due, group_keys=group_keys):
            if run.schedule == BREAKFAST.schedule and not opted_out:
                await opt_out_of(batchwork, run.batch_id)
                opted_out = True
            await show_run(batchwork, run)
    clock.jump_to(END)


async def next_due(batchwork: Batchwork) -> tuple[datetime, set[int]] | None:
    """Returns when which groups are due next."""
    by_time: defaultdict[datetime, set[int]] = defaultdict(set)
    async for group in batchwork.preferences.list_preference_groups(feature_type=FEATURE):
        for run in group.next_runs:
            by_time[run.due_time.ToDatetime(tzinfo=UTC)].add(group.group_key)
    return min(by_time.items(), default=None)


async def fired(
    batchwork: Batchwork, clock: JumpingClock, *, due: datetime, group_keys: set[int]
) -> list[Occurrence]:
    """Waits until each of the groups has its run of this time, and returns the occurrences."""
    while True:
        decided = batchwork.jobs.list_occurrences(
            JOB_ID, start_time=due, end_time=due + timedelta(seconds=1)
        )
        found = [each async for each in decided if each.batch_id]
        if group_keys <= {each.group_key for each in found}:
            return found
        await asyncio.sleep(0.02)
        # A scheduler that looked right before the jump looks again within five seconds.
        clock.jump_to(clock.now() + timedelta(seconds=0.5))


async def make(batchwork: Batchwork, move: Move) -> None:
    for user_id in move.users:
        preference = Preference(user_id=user_id, feature_type=FEATURE, schedule=move.wish.schedule)
        await batchwork.preferences.set_preference(preference, update_mask=["schedule"])
    say(
        f"{local(move.moment, move.wish.zone):14} {move.wish.zone:17} {len(move.users)} users"
        f" move to {move.wish.at}: {move.meaning}"
    )


async def opt_out_of(batchwork: Batchwork, batch_id: str) -> None:
    """Lets the last user who waits in a batch opt out while it runs."""
    progress = batchwork.batches.watch_batch(batch_id, min_interval=timedelta(milliseconds=50))
    async with aclosing(progress) as events:
        async for event in events:
            if event.kind == BATCH_EVENT_KIND_PROGRESS:
                break
    pending = batchwork.batches.list_items(batch_id, states=[ItemState.ITEM_STATE_PENDING])
    *_, last = [item.user_id async for item in pending]
    preference = Preference(user_id=last, feature_type=FEATURE, enabled=False)
    await batchwork.preferences.set_preference(preference, update_mask=["enabled"])
    say(f"{'':14} {BREAKFAST.zone:17} {last} opts out in the middle of the run")


async def show_run(batchwork: Batchwork, run: Occurrence) -> None:
    batch = await batchwork.batches.wait_for_batch(run.batch_id, timeout=timedelta(seconds=30))
    due = run.due_time.ToDatetime(tzinfo=UTC)
    say(
        f"{local(due, run.schedule.time_zone):14} {run.schedule.time_zone:17}"
        f" {cadence_in_words(run.schedule):16} {batch.counts.succeeded:3} served,"
        f" {batch.counts.skipped:2} skipped"
    )


async def who_opted_out(batchwork: Batchwork) -> str:
    found = batchwork.preferences.list_preferences(feature_type=FEATURE, enabled=False)
    [preference] = [each async for each in found]
    return preference.user_id


async def explain(batchwork: Batchwork, *user_ids: str) -> None:
    heading("Why did somebody get something, or nothing?")
    for user_id in user_ids:
        preference = await batchwork.preferences.get_preference(user_id, feature_type=FEATURE)
        told = await batchwork.preferences.explain_user(
            user_id, feature_type=FEATURE, start_time=BEGIN, end_time=END
        )
        say(f"{user_id}:")
        for period in told.periods:
            say(f"  {period_in_words(period, preference.schedule.time_zone)}")


def period_in_words(period: UserPeriod, zone: str) -> str:
    decision = UserDecision.Name(period.decision).removeprefix("USER_DECISION_")
    due = period.due_time.ToDatetime(tzinfo=UTC) if period.HasField("due_time") else None
    when = f"due {local(due, zone)}" if due else ""
    what = ", ".join(filter(None, (decision, period.reason)))
    return f"{period.period or 'now':10}  {when:18}  {what:30}  {period.message}"


def show_table(ledger: Ledger) -> None:
    line = "{:20} {:13} {:>7} {:>4} {:>6}  {}"
    say(line.format("ZONE", "CADENCE", "MEMBERS", "RUNS", "SERVED", "SKIPPED"))
    for row in sorted(ledger.rows.values(), key=lambda row: row.name):
        zone, cadence = row.name
        skipped = in_words(row.skipped)
        say(line.format(zone, cadence, row.group.member_count, row.runs, row.served, skipped))


def adds_up(ledger: Ledger) -> bool:
    """Shows the sum, and tells whether it is one."""
    problems = ledger.problems()
    for problem in problems:
        say(f"WRONG: {problem}")
    again = ledger.skipped_once_more()
    say(f"The {again} ALREADY_DONE moved after their run; their day counts as served.")
    fates = ledger.fates_of_all()
    users, days = len(ledger.users), len(ledger.days)
    say(
        f"{users} users × {days} days = {users * days} {'≠' if problems else '='}"
        f" {ledger.served} served + {ledger.skipped - again} skipped"
        f" + {fates[OPTED_OUT]} opted out + {fates[NOT_DUE]} not due"
    )
    return not problems


def in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


async def until_interrupted() -> bool:
    """Runs the demo; a signal that would end this process lets it stop its server first."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with asyncio.timeout(120):
        return await demo()


def main() -> int:
    """Returns the exit code: 0 it adds up, 1 it does not or failed, 130 interrupted."""
    try:
        return 0 if asyncio.run(until_interrupted()) else 1
    except asyncio.CancelledError:
        return ended("The demo was interrupted.", exit_code=130)
    except TimeoutError:
        return ended("The demo took more than two minutes.", exit_code=1)
    except (ServerProcessError, ServerError, BatchworkError) as error:
        return ended(f"The demo failed: {error}", exit_code=1)


def ended(why: str, *, exit_code: int) -> int:
    print(f"\n{why} The server's log is {LOG}.", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
