/** Long operations are made of steps; a step's id is stable, so that scripts may rely on it in `--json`. */
export type StepId =
  | 'resolve'
  | 'dependencies'
  | 'budget'
  | 'image'
  | 'module'
  | 'packages'
  | 'pack'
  | 'disk'
  | 'boot'
  | 'pool'
  | 'channel'
  | 'provision'
  | 'stop'
  | 'delete'
  | 'copy'
  | 'warm'
  | 'compact'
  | 'verify'
  | 'clean'
  | 'trim'
  | 'fork'
  | 'tools'
  | 'preflight'
  | 'source'
  | 'config'
  | 'make'
  | 'modules'
  | 'zfs'
  | 'initrd'
  | 'archive'
  | 'kernel'
  | 'sync'
  | 'snapshot'
  | 'revert'
  | 'export'
  | 'import'
  | 'convert'
  | 'plug'
  | 'resize';

/** What rooms tell while they work; `ui/` turns it into a task list, plain lines or JSON lines. */
export type ZfsdevEvent =
  | { readonly type: 'step-started'; readonly step: StepId; readonly title: string }
  /** `fraction` is between 0 and 1, and only given where it is known. */
  | {
      readonly type: 'step-progress';
      readonly step: StepId;
      readonly text: string;
      readonly fraction?: number;
    }
  | { readonly type: 'step-done'; readonly step: StepId; readonly text?: string }
  /** Something the user should know that is no failure. */
  | { readonly type: 'notice'; readonly level: 'info' | 'warning'; readonly text: string }
  /** What `--dry-run` would have done. */
  | { readonly type: 'would'; readonly text: string };

export type Emit = (event: ZfsdevEvent) => void;

/** Runs one step and tells its start and end; the text returned by `work` is shown beside the finished step. */
export async function step<T>(
  emit: Emit,
  id: StepId,
  title: string,
  work: (progress: (text: string, fraction?: number) => void) => Promise<T>,
  done?: (result: T) => string,
): Promise<T> {
  emit({ type: 'step-started', step: id, title });
  const result = await work((text, fraction) =>
    emit({ type: 'step-progress', step: id, text, ...(fraction === undefined ? {} : { fraction }) }),
  );
  const text = done?.(result);
  emit({ type: 'step-done', step: id, ...(text === undefined ? {} : { text }) });
  return result;
}
