/** Node's `http`. An `import` of it evaluates each of its exports, `WebSocket` too, and so loads all of undici: 14 MB that nothing here needs. */
export const http = process.getBuiltinModule('node:http')
