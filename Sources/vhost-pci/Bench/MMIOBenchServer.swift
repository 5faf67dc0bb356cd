import Glibc
import GuestMemory
import Histogram
import HostSystem
import PCI
import Synchronization
import VfioUser

/// The server of a measurement: a function of 4 KiB of registers in a thread of its own.
final class MMIOBenchServer: Sendable {
    /// Offset of a doorbell that is a register like any other.
    static let plainDoorbell: UInt64 = 0x800
    /// Offset of a doorbell that is an eventfd.
    static let eventDoorbell: UInt64 = 0xc00

    /// Where it listens.
    let path: String
    /// Signalled when the device has heard a doorbell.
    let heard: Signal

    private let shared: Shared
    private let thread: PollingThread

    /// An eventfd that can be waited for.
    final class Signal: Sendable {
        let event: EventFD

        init() throws { event = try EventFD() }

        func drain() { event.drain() }

        /// False when it was not signalled in time.
        func wait(milliseconds: Int32) -> Bool {
            var entry = pollfd(
                fd: event.descriptor.rawValue,
                events: Int16(POLLIN),
                revents: 0
            )
            return unsafe poll(&entry, 1, milliseconds) == 1
        }
    }

    /// What both threads see.
    private final class Shared: Sendable {
        struct Order {
            var address: UInt64
            var count: Int
            var byMessage: Bool
        }

        let order = Mutex<Order?>(nil)
        let result = Mutex<Result<[UInt64], any Error>?>(nil)
        let lastHeard = Atomic<UInt64>(0)
        let wake: EventFD
        let stop: EventFD
        let ready: Signal
        let done: Signal
        let doorbell: EventFD
        let heard: Signal

        init() throws {
            wake = try EventFD()
            stop = try EventFD()
            ready = try Signal()
            done = try Signal()
            doorbell = try EventFD()
            heard = try Signal()
        }

        func hear() {
            lastHeard.store(MonotonicClock.now, ordering: .releasing)
            heard.event.signal()
        }
    }

    /// Starts to serve.
    init(core: Int) throws {
        let shared = try Shared()
        let path = "/tmp/vhost-pci-bench-\(getpid())-\(MonotonicClock.now).sock"
        thread = try PollingThread(name: "bench-server") {
            do {
                try Topology.pinThread(to: core)
                let loop = try EventLoop()
                let function = RegisterFunction(shared.doorbell) { shared.hear() }
                let server = try Server(endpoint: function, path: path, loop: loop)
                try loop.watch(shared.stop.descriptor) { loop.stop() }
                try loop.watch(shared.wake.descriptor) {
                    shared.wake.drain()
                    Self.carryOut(server, shared)
                }
                shared.ready.event.signal()
                try loop.run()
                server.close()
            } catch {
                shared.result.withLock { $0 = .failure(error) }
                shared.ready.event.signal()
            }
        }
        self.path = path
        self.shared = shared
        heard = shared.heard
        _ = shared.ready.wait(milliseconds: 5000)
        if let result = shared.result.withLock({ $0 }) { _ = try result.get() }
    }

    deinit {
        shared.stop.signal()
        thread.join()
    }

    /// When the device heard a doorbell last.
    var lastHeard: UInt64 { shared.lastHeard.load(ordering: .acquiring) }

    /// Has the device read memory by messages, one after the other.
    func measureMessages(_ address: UInt64, _ count: Int) throws -> Histogram<UInt64> {
        try measure(Shared.Order(address: address, count: count, byMessage: true))
    }

    /// Has the device read memory that it has mapped.
    func measureMapping(_ address: UInt64, _ count: Int) throws -> Histogram<UInt64> {
        try measure(Shared.Order(address: address, count: count, byMessage: false))
    }

    private func measure(_ order: Shared.Order) throws -> Histogram<UInt64> {
        shared.order.withLock { $0 = order }
        shared.wake.signal()
        guard shared.done.wait(milliseconds: 60_000) else {
            throw SystemError("wait for DMA", .noDevice)
        }
        shared.done.drain()
        var times = MMIOBenchReport.histogram()
        for time in try shared.result.withLock({ $0 })?.get() ?? [] { times.record(time) }
        shared.result.withLock { $0 = nil }
        return times
    }

    // MARK: - In the server's thread

    private static func carryOut(_ server: Server, _ shared: Shared) {
        guard let order = shared.order.withLock({ $0 }) else { return }
        if order.byMessage { return next(server, shared, order, Times()) }
        let times = Times()
        for _ in 0..<order.count {
            let start = MonotonicClock.now
            let bytes = server.memory.read(order.address, MMIOBenchReport.transferSize)
            times.all.append(MonotonicClock.now - start)
            guard bytes != nil else {
                return finish(shared, .failure(SystemError("read what was mapped", .ioFailure)))
            }
        }
        finish(shared, .success(times.all))
    }

    private final class Times {
        var all: [UInt64] = []
    }

    private static func next(
        _ server: Server,
        _ shared: Shared,
        _ order: Shared.Order,
        _ times: Times
    ) {
        guard times.all.count < order.count else { return finish(shared, .success(times.all)) }
        let start = MonotonicClock.now
        server.readDMA(order.address, MMIOBenchReport.transferSize) { result in
            guard case .success = result else {
                return finish(shared, .failure(SystemError("read by a message", .ioFailure)))
            }
            times.all.append(MonotonicClock.now - start)
            next(server, shared, order, times)
        }
    }

    private static func finish(_ shared: Shared, _ result: Result<[UInt64], any Error>) {
        shared.result.withLock { $0 = result }
        shared.done.event.signal()
    }
}

/// A function whose registers keep what is written to them.
private final class RegisterFunction: PCIEndpoint {
    private static let size: UInt64 = 4096
    private var space: EmulatedConfigSpace
    private var registers: [UInt32: UInt32] = [:]
    private let doorbell: EventFD
    private let hear: () -> Void

    init(_ doorbell: EventFD, _ hear: @escaping () -> Void) {
        self.doorbell = doorbell
        self.hear = hear
        space = EmulatedConfigSpace(
            PCIIdentity(vendor: 0x1af4, device: 0x1041, classCode: 0xff0000)
        )
    }

    func barSize(_ bar: Int) -> UInt64 { bar == 0 ? Self.size : 0 }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        space.read(offset, width)
    }

    func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        space.write(offset, width, value)
    }

    func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        registers[UInt32(clamping: offset)] ?? 0
    }

    func writeRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        // The server stores here for an eventfd that it gave the client.
        let doorbells = [MMIOBenchServer.plainDoorbell, MMIOBenchServer.eventDoorbell]
        if doorbells.contains(offset) { return hear() }
        registers[UInt32(clamping: offset)] = value
    }

    func window(_ bar: Int) -> Mapping? { nil }

    func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32? {
        offset == MMIOBenchServer.eventDoorbell ? doorbell.descriptor.rawValue : nil
    }

    func attach(_ host: any PCIHost) {}
    func reset() {}
    func memoryChanged() {}
}
