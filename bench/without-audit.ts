/** Given to Node with `--import`: Millrace without its continuous audit, to measure what that costs. */
import { ContinuousAudit } from '../core/audit/continuous-audit.ts'
import { CapturedWindows } from '../core/capture/captured-windows.ts'
import { Tally, WindowLedger } from '../core/event/window-ledger.ts'

const none = new Tally()
Tally.prototype.add = () => {}
WindowLedger.prototype.tally = () => none
CapturedWindows.prototype.takeProgress = () => {}
ContinuousAudit.prototype.look = async () => {}
