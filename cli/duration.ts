// Seconds for people: "45 s", "3 min 05 s", "1 h 02 min", "2 d 3 h".

/** Rounded before it is split, so that no minute has sixty seconds. */
export function durationText(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (!Number.isFinite(s)) return "unknown";
  if (s < 60) return `${s} s`;
  const two = (n: number): string => String(n).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(s / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
