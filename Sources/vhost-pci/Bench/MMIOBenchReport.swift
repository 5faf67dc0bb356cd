import GuestMemory
import Histogram
import HostSystem
import PCI
import VfioUser
import Virtqueue

/// What `vhost-pci bench mmio` measured, in the form `vhost-pci.bench-mmio/1`.
struct MMIOBenchReport: Encodable {
    /// One kind of access.
    struct Row: Encodable {
        struct Nanoseconds: Encodable {
            var min: UInt64
            var p50: UInt64
            var p99: UInt64
            var max: UInt64
        }

        var name: String
        var bytes: Int
        var count: UInt64
        var nanoseconds: Nanoseconds
    }

    var schema = "vhost-pci.bench-mmio/1"
    var target: String?
    var clientCore = 0
    var serverCore: Int?
    var rows: [Row] = []

    enum CodingKeys: String, CodingKey {
        case schema, target, rows
        case clientCore = "client_core"
        case serverCore = "server_core"
    }

    /// Bytes of the device's accesses to our memory.
    static let transferSize = 4096
    /// Accesses before the first one that counts.
    private static let warmUp = 1000

    /// Reads a register of a server that somebody else runs.
    mutating func measureReads(_ path: String, bar: Int, _ count: Int) throws {
        let client = try Client(path: path)
        try client.changeCommand { $0.union(.memorySpace) }
        try measure("register read", bytes: 4, count) {
            _ = try client.readRegister(bar, 0, .long)
        }
    }

    /// Measures our client on our server.
    mutating func measure(_ count: Int, serverCore: Int) throws {
        let server = try MMIOBenchServer(core: serverCore)
        try measureAccesses(count, server)
        try measureMessages(count, server)
    }

    private mutating func measureAccesses(_ count: Int, _ server: MMIOBenchServer) throws {
        let client = try Client(path: server.path)
        try client.changeCommand { $0.union([.memorySpace, .busMaster]) }
        try measure("register read", bytes: 4, count) {
            _ = try client.readRegister(0, 0, .long)
        }
        try measure("register write", bytes: 4, count) {
            try client.writeRegister(0, 0, .long, 1)
        }
        let relayed = try client.doorbell(0, MMIOBenchServer.plainDoorbell, value: 0)
        try measure("doorbell by a message", count, server, relayed)
        let direct = try client.doorbell(0, MMIOBenchServer.eventDoorbell, value: 0)
        try measure("doorbell by an eventfd", count, server, direct)
        let times = try Self.reach(client) { try server.measureMapping($0, count) }
        rows.append(Self.row("DMA read by a mapping", Self.transferSize, times))
    }

    /// The same without handing over files.
    private mutating func measureMessages(_ count: Int, _ server: MMIOBenchServer) throws {
        var limits = ClientLimits()
        limits.sharesMemory = false
        let client = try Client(path: server.path, limits: limits)
        let times = try Self.reach(client) { try server.measureMessages($0, count) }
        rows.append(Self.row("DMA read by a message", Self.transferSize, times))
    }

    /// Lets the device reach some memory for as long as `work` takes.
    private static func reach(
        _ client: Client,
        _ work: (_ address: UInt64) throws -> Histogram<UInt64>
    ) throws -> Histogram<UInt64> {
        let arena = try client.makeArena(size: 1 << 16)
        let times = try work(arena.deviceAddress)
        try client.releaseArena(arena)
        return times
    }

    /// From the call to its return.
    private mutating func measure(
        _ name: String,
        bytes: Int,
        _ count: Int,
        _ access: () throws -> Void
    ) throws {
        for _ in 0..<Self.warmUp { try access() }
        var times = Self.histogram()
        for _ in 0..<count {
            let start = MonotonicClock.now
            try access()
            times.record(MonotonicClock.now - start)
        }
        rows.append(Self.row(name, bytes, times))
    }

    /// From the ring to the device's hearing of it.
    private mutating func measure(
        _ name: String,
        _ count: Int,
        _ server: MMIOBenchServer,
        _ doorbell: Doorbell
    ) throws {
        var times = Self.histogram()
        for index in 0..<(Self.warmUp + count) {
            server.heard.drain()
            let start = MonotonicClock.now
            doorbell.ring()
            guard server.heard.wait(milliseconds: 2000) else {
                throw SystemError("wait for a doorbell", .noDevice)
            }
            if index >= Self.warmUp { times.record(server.lastHeard - start) }
        }
        rows.append(Self.row(name, 2, times))
    }

    static func histogram() -> Histogram<UInt64> {
        Histogram(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)
    }

    private static func row(_ name: String, _ bytes: Int, _ times: Histogram<UInt64>) -> Row {
        Row(
            name: name,
            bytes: bytes,
            count: times.totalCount,
            nanoseconds: Row.Nanoseconds(
                min: times.min,
                p50: times.valueAtPercentile(50),
                p99: times.valueAtPercentile(99),
                max: times.max
            )
        )
    }

    /// The table for people.
    var lines: [String] {
        var table = TextTable(["access", "bytes", "median", "99 %", "min", "max", "times"])
        for row in rows {
            let times = row.nanoseconds
            table.add(
                [row.name, "\(row.bytes)"]
                    + [times.p50, times.p99, times.min, times.max].map(Self.microseconds)
                    + ["\(row.count)"]
            )
        }
        let place = serverCore.map { "server on CPU \($0)" } ?? "server at \(target ?? "")"
        return table.lines + ["client on CPU \(clientCore), \(place)"]
    }

    private static func microseconds(_ nanoseconds: UInt64) -> String {
        let hundredths = (nanoseconds + 5) / 10
        let rest = "\(hundredths % 100)"
        return "\(hundredths / 100).\(rest.count < 2 ? "0" : "")\(rest) µs"
    }
}
