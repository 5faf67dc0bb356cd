public import GuestMemory

extension Engine {
    /// Makes the worker of a port use another table; the rings lie where they lay. When this returns the
    /// worker uses that table alone: nothing of the one before is touched any more.
    ///
    /// The rings must be within reach in `memory`, or they break. Throws `workerStuck` when the worker
    /// does not follow within so many milliseconds: both tables are kept until the port is detached.
    public func exchange(
        _ id: PortID,
        memory: MemoryTable,
        milliseconds limit: UInt64 = Engine.patienceMilliseconds
    ) throws(EngineError) {
        let port = try port(id)
        guard case .attached(let attachment, let worker) = port.link, port.kind == .peer else {
            throw .wrongPort(port.name, why: "it has no rings in a peer's memory")
        }
        attachment.beginExchange(memory)
        guard worker.follows(worker.control.raiseCommand(), milliseconds: limit) else {
            throw .workerStuck(core: worker.core, port: port.name, milliseconds: limit)
        }
        attachment.endExchange()
    }

    /// Times a port was attached; 0 for one that is not there.
    public func connections(of id: PortID) -> Int {
        known(id)?.connections ?? 0
    }
}
