/**
 * The contract suites, for vitest: what every source, sink, log and registry must do. A connector's test calls the suite of its stage with a small driver;
 * the package's own connectors pass exactly these.
 */
export { EXTREMES } from './column-extremes.ts'
export { type LogCapabilities, logContract, type ProvisionedLog } from './log.contract.ts'
export { type RegistryUnderTest, registryContract } from './registry.contract.ts'
export { type SinkCapabilities, type SinkProvision, sinkContract } from './sink.contract.ts'
export { type Item, type ProvisionedSource, type SourceCapabilities, sourceContract, type TypedTable, type Write } from './source.contract.ts'
