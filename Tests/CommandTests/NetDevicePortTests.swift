import GuestMemory
import HostSystem
import NetSupport
import PCI
import PollEngine
import Testing
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

@testable import vhost_pci

/// Network devices of ours as ports of a switch, each with a driver in this process.
@Suite(.serialized) struct NetDevicePortTests {
    /// A machine: device, function, driver.
    private final class Machine {
        let address: [UInt8]
        let device: NetDevice
        let host: PeerPortHost
        let bus: InProcessFunction
        let transport: PCITransport
        let client: NetClient
        let port: PortID
        var events: [NetDeviceEvent] = []
        var pending: [[UInt8]] = []

        init(_ number: UInt8, _ engine: Engine, _ loop: EventLoop) throws {
            address = [2, 0, 0, 0, 0, number]
            port = try engine.addPort(name: "net\(number)", kind: .peer)
            host = PeerPortHost(engine: engine, port: port, loop: loop) { _, _ in }
            device = try NetDevice(
                NetDeviceOptions(macAddress: address),
                loop: loop,
                host: host
            )
            let function = try VirtioPCIFunction(device: device)
            bus = InProcessFunction(endpoint: function)
            transport = try PCITransport(function: bus)
            client = NetClient(transport, ringSize: 64)
            device.report = { [weak self] in self?.events.append($0) }
        }

        var faults: [String] {
            events.compactMap { if case .failed(let fault) = $0 { fault.id } else { nil } }
        }

        /// Frames to another machine; what they carry tells them apart.
        func frame(to other: Machine, _ number: Int, size: Int = 200) -> [UInt8] {
            let head = other.address + address + [0x88, 0xb5]
            let body = (0..<size - head.count).map { UInt8(truncatingIfNeeded: $0 &+ number) }
            return head + body
        }
    }

    private let loop: EventLoop
    private let engine: Engine
    private let first: Machine
    private let second: Machine

    init() throws {
        loop = try EventLoop()
        engine = try Engine(mode: .switch, cores: [Topology.usableCPUs.last ?? 0], idle: .sleep)
        first = try Machine(1, engine, loop)
        second = try Machine(2, engine, loop)
    }

    /// Sends frames and serves the loop until they all have come, at most 10 s; `meanwhile` happens
    /// while some of them are on their way.
    private func expectTraffic(
        _ count: Int,
        from sender: Machine,
        to receiver: Machine,
        location: SourceLocation = #_sourceLocation,
        meanwhile: () throws -> Void = {}
    ) throws {
        let wanted = (0..<count).map { sender.frame(to: receiver, $0, size: 64 + $0 % 1400) }
        var received: [[UInt8]] = []
        var sent = 0
        let deadline = Deadline(milliseconds: 10_000)
        while received.count < count, !deadline.hasPassed {
            // The switch drops what finds no buffer: never more on the way than there are.
            while sent < count, sent - received.count < 32, try sender.client.send(wanted[sent]) {
                sent += 1
            }
            try meanwhile()
            try loop.turn(limitMilliseconds: 1)
            received += try receiver.client.frames().filter { $0.starts(with: receiver.address) }
        }
        #expect(received == wanted, sourceLocation: location)
    }

    private func end() throws {
        first.client.stop()
        second.client.stop()
        try engine.stop()
        #expect(first.faults.isEmpty && second.faults.isEmpty)
    }

    @Test func `two drivers exchange frames through a switch whose worker sleeps between`() throws {
        try first.client.start()
        try second.client.start()
        try expectTraffic(500, from: first, to: second)
        try expectTraffic(500, from: second, to: first)
        let ports = engine.snapshot().ports
        #expect(ports.allSatisfy { $0.received.packets == 500 && $0.isAttached })
        #expect(ports.allSatisfy { $0.copies == $0.transmitted.packets })
        try end()
    }

    @Test func `HI-H13: one driver resets under traffic, and neither loses its device`() throws {
        try first.client.start()
        for round in 0..<20 {
            try second.client.start()
            try expectTraffic(20 + round, from: first, to: second)
            _ = try first.client.send(first.frame(to: second, 0))
            _ = try second.client.send(second.frame(to: first, 0))
            try second.transport.reset()
            #expect(engine.snapshot().ports.map(\.isAttached) == [true, false])
            _ = try first.client.frames()
        }
        try end()
    }

    @Test func `HI-I15: memory that changes under traffic stops no worker and loses no frame`()
        throws
    {
        try first.client.start()
        try second.client.start()
        for _ in 0..<20 {
            try expectTraffic(40, from: first, to: second)
            let arena = try second.transport.makeArena(size: 4096)
            try expectTraffic(40, from: second, to: first)
            try second.transport.releaseArena(arena)
        }
        #expect(engine.snapshot().ports[1].connections == 1)
        #expect(!second.events.contains(.detached))
        try end()
    }

    @Test func `HI-E13: memory that was taken away is in nobody's hands when the call returns`()
        throws
    {
        final class Box { weak var mapping: Mapping? }
        try first.client.start()
        try second.client.start()
        let box = Box()
        for _ in 0..<20 {
            try {
                let arena = try second.transport.makeArena(size: 1 << 16)
                box.mapping = arena.mapping
                try expectTraffic(5, from: first, to: second)
                try second.transport.releaseArena(arena)
            }()
            // Neither the worker's queues nor the port keep it mapped.
            #expect(box.mapping == nil)
        }
        #expect(engine.snapshot().ports[1].connections == 1)
        try end()
    }

    @Test func `HI-I15: a thousand pages come and go while frames are on their way`() throws {
        try first.client.start()
        try second.client.start()
        let arenas = try (0..<8).map { index in
            try DMAArena(size: 4096, deviceAddress: 0x7000_0000_0000 + UInt64(index) << 12)
        }
        var changes = 0
        var isBackwards = false
        while changes < 2000 {
            isBackwards.toggle()
            let (sender, receiver) = isBackwards ? (second, first) : (first, second)
            try expectTraffic(60, from: sender, to: receiver) {
                for arena in arenas { try second.bus.mapDMA(arena) }
                for arena in arenas { try second.bus.unmapDMA(arena) }
                changes += 16
            }
        }
        #expect(engine.snapshot().ports[1].connections == 1)
        try end()
    }

    @Test func `a port that the engine cannot attach takes the link of its device down`() throws {
        try first.client.start()
        try engine.stop()
        try second.client.start()
        #expect(second.device.failure?.id == "port/attach")
        #expect(!second.device.isLinkUp && !second.device.isAttached)
        #expect(engine.snapshot().ports[1].failure?.contains("stopped") == true)
        second.client.stop()
        #expect(second.device.failure == nil)
        first.client.stop()
    }

    @Test func `HI-A1: a ring that its driver breaks is a fault of that device alone`() throws {
        try first.client.start()
        try second.client.start()
        try expectTraffic(10, from: first, to: second)
        let memory = first.bus.memory
        let ring = try availableRing(of: first)
        #expect(memory.write([0xff, 0x7f], at: ring + 2))
        try first.transport.notifyQueue(1)
        let deadline = Deadline(milliseconds: 5000)
        while first.faults.isEmpty, !deadline.hasPassed { try loop.turn(limitMilliseconds: 10) }
        #expect(first.faults == ["ring/avail-jump"])
        #expect(try first.transport.status().contains(.needsReset))
        #expect(second.faults.isEmpty)
        first.events = []
        try first.client.start()
        try expectTraffic(10, from: first, to: second)
        try expectTraffic(10, from: second, to: first)
        try end()
    }

    /// Where the available ring of the first transmit queue is, as its registers say.
    private func availableRing(of machine: Machine) throws -> UInt64 {
        try machine.bus.writeRegister(
            0,
            UInt64(CommonConfiguration.queueSelect.offset),
            .word,
            1
        )
        let low = try machine.bus.readRegister(
            0,
            UInt64(CommonConfiguration.queueDriverLow.offset),
            .long
        )
        let high = try machine.bus.readRegister(
            0,
            UInt64(CommonConfiguration.queueDriverHigh.offset),
            .long
        )
        return UInt64(high) << 32 | UInt64(low)
    }
}
