/**
 * A value inside one of QEMU's `key=value,key=value` option strings: a comma is doubled there, nothing else is
 * special. Where QEMU takes JSON (`-blockdev`, `-device`, `-object`), JSON is used instead.
 */
export function optionValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** Joins a leading word and `key=value` pairs into an option string, each value escaped. */
export function optionString(
  first: string,
  options: Readonly<Record<string, string | number | boolean>>,
): string {
  const pairs = Object.entries(options).map(
    ([key, value]) => `${key}=${typeof value === 'boolean' ? onOff(value) : optionValue(String(value))}`,
  );
  return [optionValue(first), ...pairs].join(',');
}

function onOff(value: boolean): string {
  return value ? 'on' : 'off';
}
