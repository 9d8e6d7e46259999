/** A bar of `width` characters for a part of a whole, in eighths of a character; at least a sliver for anything there is. */
export function bar(part: number, whole: number, width: number): string {
  if (whole <= 0) return ' '.repeat(width);
  const eighths = Math.min(width * 8, Math.max(part > 0 ? 1 : 0, Math.round((part / whole) * width * 8)));
  const full = '█'.repeat(Math.floor(eighths / 8));
  const rest = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8] ?? '';
  return (full + rest).padEnd(width, '·');
}
