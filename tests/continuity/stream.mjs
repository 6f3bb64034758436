// The numbered events of the long run: whom each one is for, and what a client was due and got.

const ROOMS = 8;
/** Every so many events there is a binary one. */
const BINARY = 10;

const room = (index) => `room-${index % ROOMS}`;

/** The rooms of a client: two that differ, so that an event for both must still come once. */
export const roomsOf = (index) => [room(index), room(index + 1 + (index % 3))];

/** The event with this number, as `POST /api/v1/emit` takes it. Its first argument is the number. */
export function event(number) {
  const bytes = number % BINARY === 0 ? [{ $binary: Buffer.from(`${number}`).toString("base64") }] : [{ words: "é" }];
  return { event: "n", args: [number, ...bytes], ...target(number) };
}

function target(number) {
  switch (number % 5) {
    case 1: return { to: [room(number >> 2)] };
    case 2: return { to: [room(number >> 2), room((number >> 2) + 1)] };
    case 3: return { to: "all", except: [room(number >> 2)] };
    default: return { to: "all" };
  }
}

/** Whether an event is for a client. */
export function isDue(number, index) {
  const rooms = roomsOf(index);
  const { to, except = [] } = target(number);
  return (to === "all" || to.some((name) => rooms.includes(name))) && !except.some((name) => rooms.includes(name));
}

/**
 * Compares what a client got, in order, with what was emitted. `emitted(number)` is `sent`, `doubtful` (its emit was asked
 * for, and never answered) or undefined.
 */
export function judge(index, got, count, emitted) {
  const times = new Map();
  const found = { due: 0, lost: [], twice: [], foreign: [], overtaken: [] };
  let highest = -1;
  for (const number of got) {
    times.set(number, (times.get(number) ?? 0) + 1);
    if (times.get(number) > 1) found.twice.push(number);
    else if (number < highest) found.overtaken.push(number);
    highest = Math.max(highest, number);
    if (emitted(number) === undefined || !isDue(number, index)) found.foreign.push(number);
  }
  for (let number = 0; number < count; number++) {
    if (emitted(number) !== "sent" || !isDue(number, index)) continue;
    found.due += 1;
    if (!times.has(number)) found.lost.push(number);
  }
  return found;
}
