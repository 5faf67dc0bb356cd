public import GuestMemory
public import HostSystem
internal import Synchronization

/// The polling virtqueue engine: workers pinned to cores that move packets between ports.
///
/// One thread, the control thread, makes all calls. A port is added once and may be attached and
/// detached any number of times while the workers run; its totals survive. A worker picks changes
/// up between two turns and says so; nothing that it may still touch is freed before.
///
///     let engine = try Engine(mode: .switch, cores: [1])
///     let port = try engine.addPort(name: "peer0", kind: .peer)
///     try engine.attach(port, pairs: pairs, memory: table)
///     …
///     try engine.detach(port)
///     try engine.stop()
public final class Engine {
    /// What the workers do with packets.
    public let mode: ForwardingMode
    /// What the workers do in turns without packets.
    public let idle: IdleStrategy
    /// Most ports.
    public static var portLimit: Int { WorkerControl.capacity }
    /// How long `detach` and `stop` wait for a worker: a turn takes microseconds, so this passes
    /// only when the worker's CPU is taken away.
    public static var patienceMilliseconds: UInt64 { 1000 }

    private var workers: [Worker] = []
    /// Slot by slot; those of removed ports are `nil` until they are given to others.
    private var ports: [EnginePort?] = []
    /// Ports so far.
    private var serial: UInt64 = 0
    private var isStopped = false

    /// Starts one worker on each core.
    ///
    /// `packetSize` is the size of generated frames in bytes, `rate` their number a second and
    /// port; without a rate every receive buffer is filled at once. Refuses cores that this process
    /// may not use, and `switch` on several cores, which does not exist.
    public init(
        mode: ForwardingMode,
        cores: [Int],
        idle: IdleStrategy = .pause,
        packetSize: Int = 64,
        rate: UInt64? = nil
    ) throws(EngineError) {
        self.mode = mode
        self.idle = idle
        try Engine.check(mode, cores)
        guard FrameGenerator.sizes.contains(packetSize) else {
            throw .packetSize(packetSize, allowed: FrameGenerator.sizes)
        }
        if let rate, !(1...1_000_000_000).contains(rate) { throw .rate(rate) }
        _ = CycleClock.hertz
        for core in cores {
            let plan = WorkerPlan(
                core: core,
                idle: idle,
                packetSize: packetSize,
                rate: rate,
                tableKey: UInt64.random(in: .min ... .max)
            )
            do throws(EngineError) {
                workers.append(try Worker(plan, mode: mode, startMilliseconds: 5000))
            } catch {
                isStopped = true
                for worker in workers
                where !worker.stop(milliseconds: Engine.patienceMilliseconds) {
                    _ = unsafe Unmanaged.passRetained(worker)
                }
                throw error
            }
        }
    }

    deinit {
        do throws(EngineError) {
            try stop()
        } catch {
            abandonRunning()
        }
    }

    private static func check(_ mode: ForwardingMode, _ cores: [Int]) throws(EngineError) {
        guard !cores.isEmpty else { throw .noCores }
        for (index, core) in cores.enumerated() {
            if cores[..<index].contains(core) { throw .repeatedCore(core) }
            guard Topology.mayUse(cpu: core) else {
                throw .unusableCore(core, usable: Topology.usableCPUs)
            }
        }
        if mode == .switch, cores.count > 1 {
            throw .notSupported("mode switch on \(cores.count) cores; give it one")
        }
    }

    /// Adds a port that has no rings yet. Its name stands in reports and is its own.
    public func addPort(name: String, kind: PortKind) throws(EngineError) -> PortID {
        guard !isStopped else { throw .stopped }
        guard !ports.contains(where: { $0?.name == name }) else { throw .repeatedName(name) }
        let slot = ports.firstIndex { $0 == nil } ?? ports.count
        guard slot < Engine.portLimit else { throw .tooManyPorts(limit: Engine.portLimit) }
        serial += 1
        let id = PortID(slot, serial: serial)
        let port = EnginePort(id, name: name, kind: kind)
        if slot < ports.count { ports[slot] = port } else { ports.append(port) }
        return id
    }

    /// Forgets a port and its totals; its name and its place are free for others. Throws `attached` for
    /// a port that has rings, and `workerStuck` while a worker has not let go of it.
    public func removePort(_ id: PortID) throws(EngineError) {
        let port = try port(id)
        if case .detaching = port.link { try detach(id, milliseconds: 0) }
        guard case .detached = port.link else { throw .attached(port.name) }
        ports[id.index] = nil
    }

    /// Adds a TAP interface that exists, as an uplink of the switch; it is attached at once.
    @discardableResult
    public func addTap(_ name: String) throws(EngineError) -> PortID {
        let file: FileDescriptor
        guard mode == .switch else { throw .notSupported("a TAP uplink in mode \(mode.rawValue)") }
        do throws(TapError) {
            file = try TapPort.open(name)
        } catch {
            throw .tap(error)
        }
        return try addTap(name, file)
    }

    /// Adds an uplink over an open descriptor that carries one frame a read and a write.
    func addTap(_ name: String, _ file: FileDescriptor) throws(EngineError) -> PortID {
        let id = try addPort(name: name, kind: .tap)
        let port = try port(id)
        let worker = pickWorker(memoryNode: nil)
        do throws(SystemError) {
            let attachment = try PortAttachment(
                port: id,
                tap: file,
                workerNode: worker.node
            )
            try begin(port, attachment, worker)
        } catch {
            ports[id.index] = nil
            throw .system(error)
        }
        return id
    }

    /// Gives a port its queue pairs. When this returns a worker serves them, unless it is held up,
    /// and then it will with its next turn.
    ///
    /// The pairs are handed over for good; `memory`, the table that their rings lie in, is kept
    /// until the port is detached. The worker is one on the node of that memory where there is
    /// such, the one with the fewest ports otherwise.
    public func attach(
        _ id: PortID,
        pairs: consuming PortPairs,
        memory: MemoryTable
    ) throws(EngineError) {
        do throws(EngineError) {
            try begin(id, pairs: pairs, memory: memory)
        } catch {
            known(id)?.fail(error)
            throw error
        }
    }

    private func begin(
        _ id: PortID,
        pairs: consuming PortPairs,
        memory: MemoryTable
    ) throws(EngineError) {
        let port = try detachedPort(id, kind: .peer, else: "only a peer has queue pairs")
        guard (1...PortPairs.limit).contains(pairs.count) else {
            throw .pairCount(pairs.count, limit: PortPairs.limit)
        }
        let node = Engine.node(of: memory)
        let worker = pickWorker(memoryNode: node)
        do throws(SystemError) {
            let attachment = try PortAttachment(
                port: id,
                pairs: pairs,
                memory: memory,
                memoryNode: node,
                workerNode: worker.node
            )
            try begin(port, attachment, worker)
        } catch {
            throw .system(error)
        }
    }

    /// The port, if it is of that kind and can be attached now.
    func detachedPort(
        _ id: PortID,
        kind: PortKind,
        else why: String
    ) throws(EngineError) -> EnginePort {
        guard !isStopped else { throw .stopped }
        let port = try port(id)
        guard port.kind == kind else { throw .wrongPort(port.name, why: why) }
        // A worker that was late with letting go has by now, or this throws, without another wait: whoever
        // attaches tries again later.
        if case .detaching = port.link { try detach(id, milliseconds: 0) }
        guard case .detached = port.link else { throw .attached(port.name) }
        return port
    }

    /// Takes a port's rings away. When this returns, no worker touches them or their memory.
    ///
    /// Throws `workerStuck` when the worker does not follow within so many milliseconds: the memory
    /// is then kept, and the call may be repeated. A port that is not attached is no error.
    public func detach(
        _ id: PortID,
        milliseconds limit: UInt64 = Engine.patienceMilliseconds
    ) throws(EngineError) {
        let port = try port(id)
        let attachment: PortAttachment
        let worker: Worker
        let command: UInt64
        switch port.link {
        case .detached: return
        case .attached(let kept, let server):
            attachment = kept
            worker = server
            command = server.detach(kept, at: id.index)
            port.link = .detaching(kept, server, command: command)
        case .detaching(let kept, let server, let number):
            attachment = kept
            worker = server
            command = number
        }
        guard worker.follows(command, milliseconds: limit) else {
            throw .workerStuck(core: worker.core, port: port.name, milliseconds: limit)
        }
        port.end(attachment)
    }

    /// True while the worker of a port that was taken away has not let go of it: all that it was given
    /// to touch, eventfds too, has to stay. Asks, and does not wait.
    public func isDetaching(_ id: PortID) -> Bool {
        guard case .detaching? = known(id)?.link else { return false }
        do throws(EngineError) {
            try detach(id, milliseconds: 0)
            return false
        } catch {
            return true
        }
    }

    /// Wakes the worker of a port, should it sleep: a peer has kicked. Cheap, and never wrong.
    public func wake(_ id: PortID) {
        guard case .attached(_, let worker)? = known(id)?.link else { return }
        worker.control.wake.signal()
    }

    /// The eventfd that wakes the worker of a port, for transports that can signal it themselves;
    /// `nil` while the port is not attached.
    public func wakeDescriptor(of id: PortID) -> FileDescriptor? {
        guard case .attached(_, let worker)? = known(id)?.link else { return nil }
        return worker.control.wake.descriptor
    }

    /// What has been done so far. Workers publish when they turn idle and every 64 turns.
    public func snapshot() -> EngineReport {
        EngineReport(
            mode: mode,
            cyclesPerSecond: CycleClock.hertz,
            workers: workers.map { worker in
                EngineReport.Worker(
                    core: worker.core,
                    node: worker.node,
                    busyCycles: worker.control.busyCycles.load(ordering: .relaxed),
                    idleCycles: worker.control.idleCycles.load(ordering: .relaxed),
                    turns: worker.control.turns.load(ordering: .relaxed),
                    emptyPolls: worker.control.emptyPolls.load(ordering: .relaxed),
                    sleeps: worker.control.sleeps.load(ordering: .relaxed)
                )
            },
            ports: ports.compactMap { $0?.report() }
        )
    }

    /// One port as it is now; `nil` for one that is not there.
    public func report(of id: PortID) -> EngineReport.Port? {
        (try? port(id))?.report()
    }

    /// Ends all workers, waits for them, then detaches all ports (HI-I25). Repeating it is no error.
    ///
    /// Throws `stopTimeout` when a worker does not end in time; it and all that it may touch are
    /// then left in place, and the call may be repeated.
    public func stop() throws(EngineError) {
        isStopped = true
        let limit = Engine.patienceMilliseconds
        var running: [Int] = []
        for worker in workers where !worker.stop(milliseconds: limit) {
            running.append(worker.core)
        }
        for port in ports.compactMap({ $0 }) {
            switch port.link {
            case .attached(let attachment, let worker) where !running.contains(worker.core),
                .detaching(let attachment, let worker, _) where !running.contains(worker.core):
                port.end(attachment)
            default: break
            }
        }
        guard running.isEmpty else { throw .stopTimeout(cores: running, milliseconds: limit) }
    }

    /// Leaves for good what a worker that never ends may touch.
    private func abandonRunning() {
        for worker in workers { _ = unsafe Unmanaged.passRetained(worker) }
        for case let port? in ports { _ = unsafe Unmanaged.passRetained(port) }
    }

    /// As `begin`, for callers that throw the engine's errors.
    func begin(
        _ port: EnginePort,
        _ attachment: PortAttachment,
        on worker: Worker
    ) throws(EngineError) {
        do throws(SystemError) { try begin(port, attachment, worker) } catch {
            throw .system(error)
        }
    }

    private func begin(
        _ port: EnginePort,
        _ attachment: PortAttachment,
        _ worker: Worker
    ) throws(SystemError) {
        let command = try worker.attach(attachment, at: port.id.index)
        port.begin(attachment, worker)
        _ = worker.follows(command, milliseconds: Engine.patienceMilliseconds)
    }

    /// What the engine and its workers share, for tests of its lifetime.
    var workerControls: [WorkerControl] { workers.map(\.control) }

    func port(_ id: PortID) throws(EngineError) -> EnginePort {
        guard let port = known(id) else {
            throw .wrongPort("#\(id.index)", why: "this engine has no such port")
        }
        return port
    }

    func known(_ id: PortID) -> EnginePort? {
        guard ports.indices.contains(id.index), let port = ports[id.index], port.id == id
        else { return nil }
        return port
    }

    func pickWorker(memoryNode: Int?) -> Worker {
        let near = workers.filter { $0.node == memoryNode }
        let candidates = near.isEmpty ? workers : near
        guard let best = candidates.min(by: { $0.portCount < $1.portCount }) else {
            preconditionFailure("an engine has a worker for each core, and at least one core")
        }
        return best
    }

    /// Node of the largest region's first page, where the kernel tells.
    static func node(of memory: MemoryTable) -> Int? {
        guard let region = memory.all.max(by: { $0.size < $1.size }) else { return nil }
        return unsafe try? Topology.node(ofAddress: region.base)
    }
}
