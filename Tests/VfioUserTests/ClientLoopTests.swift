import AdminQueue
import DeviceCheck
import Glibc
import HostSystem
import PCI
import Testing
import VhostPCINet
import Virtio
import VirtioSpec

@testable import VfioUser

/// Our client on our server.
@Suite struct ClientLoopTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func `VFU-S-40, VFU-S-43: a served function does what it does in process`(
        _ seed: UInt64
    ) throws {
        let served = try ServedFunction { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let pair = try Lockstep(served.path, seed: seed)
        while pair.steps < 3000 { try pair.step() }
    }

    @Test func `a window of a served function is the server's memory`() throws {
        let served = try ServedFunction { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let client = try Client(path: served.path)
        try client.writeConfiguration(ConfigurationHeader.command, .word, 2)
        try client.writeRegister(2, 4096, .long, 0x1234_5678)
        try client.writeRegister(2, 40960, .long, 0x9abc_def0)
        let window = try client.mapWindow(2, offset: 0, size: 65536)
        #expect(unsafe window.address.load(fromByteOffset: 4096, as: UInt32.self) == 0x1234_5678)
        #expect(unsafe window.address.load(fromByteOffset: 40960, as: UInt32.self) == 0x9abc_def0)
        unsafe window.address.storeBytes(of: 0x55aa, toByteOffset: 8188, as: UInt16.self)
        #expect(try client.readRegister(2, 8188, .long) == 0x55aa)
        // Between the areas nothing is mapped; messages get there.
        try client.writeRegister(2, 16384, .byte, 7)
        #expect(unsafe window.address.load(fromByteOffset: 16384, as: UInt8.self) == 0)
        #expect(try client.readRegister(2, 16384, .byte) == 7)
        withExtendedLifetime(served) {}
    }

    @Test func `a served management device passes every check`() throws {
        let served = try ServedFunction { loop in
            let window = try Mapping.anonymous(length: 1 << 20)
            let device = try ManagementDevice(
                factory: NoDevices(),
                peerWindow: window,
                peerDoorbells: DoorbellTable(count: 4),
                loop: loop
            )
            return try VirtioPCIFunction(device: device)
        }
        try expectPasses(served)
    }

    @Test func `a served vhost-pci-net device passes every check`() throws {
        let served = try ServedFunction { loop in
            let device = VhostPCINetDevice(
                name: "served",
                window: PeerWindowSlice(mapping: try Mapping.anonymous(length: 1 << 20), offset: 0),
                doorbells: try DoorbellTable(count: 4),
                loop: loop
            )
            return try VirtioPCIFunction(device: device)
        }
        try expectPasses(served)
    }

    private func expectPasses(_ served: ServedFunction) throws {
        let results = try DeviceCheck.run(Client(path: served.path))
        for result in results where result.verdict == .fail {
            Issue.record("\(result.id) \(result.subject): \(result.evidence)")
        }
        #expect(results.filter { $0.verdict == .pass }.count >= 40)
    }

    @Test func `HI-E44: a server that ends is told, and one that comes again is driven anew`()
        throws
    {
        var served: ServedFunction? = try ServedFunction { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let client = try Client(path: try #require(served).path)
        let loop = try EventLoop()
        var told: HostRefusal?
        try client.watch(on: loop) { told = $0 }
        served = nil
        let deadline = Deadline(milliseconds: 1000)
        while told == nil, !deadline.hasPassed { try loop.turn(limitMilliseconds: 10) }
        #expect(told?.id == "vfu/peer-gone")
        let again = try ServedFunction { _ in try VirtioPCIFunction(device: ReverseDevice()) }
        let next = try Client(path: again.path)
        #expect(try next.readConfiguration(0, .word) == 0x1af4)
    }
}

/// Q6: nobody can keep the other end waiting for long, and the next connection works.
@Suite struct ClientPatienceTests {
    /// A function whose reads take their time.
    private final class SlowFunction: PCIEndpoint {
        let base: VirtioPCIFunction
        init() throws { base = try VirtioPCIFunction(device: ReverseDevice()) }

        func barSize(_ bar: Int) -> UInt64 { base.barSize(bar) }
        func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
            base.readConfiguration(offset, width)
        }
        func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
            base.writeConfiguration(offset, width, value)
        }
        func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
            if bar == 0 { pauseMilliseconds(400) }
            return base.readRegister(bar, offset, width)
        }
        func writeRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
            base.writeRegister(bar, offset, width, value)
        }
        func window(_ bar: Int) -> Mapping? { base.window(bar) }
        func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32? { nil }
        func attach(_ host: any PCIHost) { base.attach(host) }
        func reset() { base.reset() }
        func memoryChanged() { base.memoryChanged() }
    }

    @Test func `VFU-C-07: a server that stops answering costs its limit, and recovers`() throws {
        let served = try ServedFunction { _ in try SlowFunction() }
        var limits = ClientLimits()
        limits.reply = 100
        let client = try Client(path: served.path, limits: limits)
        let arena = try client.makeArena(size: 4096)
        let start = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        #expect((100..<350).contains((MonotonicClock.now - start) / 1_000_000))
        // Everything else ends at once, giving back included.
        let second = MonotonicClock.now
        #expect(refusal { try client.releaseArena(arena) } == "vfu/stall")
        #expect(refusal { try client.reset() } == "vfu/stall")
        #expect((MonotonicClock.now - second) / 1_000_000 < 50)
        // The server finds the end of the connection behind its slow answer, and serves the next.
        #expect(served.waits(for: "disconnected"))
        let next = try Client(path: served.path)
        #expect(try next.readConfiguration(0, .word) == 0x1af4)
        #expect(try next.readRegister(2, 0, .long) == UInt32.max)
    }

    @Test func `VFU-S-47: a client that stops reading is let go, and the next is served`() throws {
        let limits = ServerLimits(
            deadlines: FramedStream.Deadlines(halfMessage: 200, unread: 200)
        )
        let served = try ServedFunction(limits: limits) { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let socket = try UnixSocket.connect(to: served.path)
        let stream = FramedStream(socket, format: .vfioUser)
        let version = Version(capabilities: Capabilities()).encoded
        let hello = MessageHeader(
            identifier: 0,
            command: 1,
            messageSize: UInt32(16 + version.count)
        )
        _ = stream.send(hello.encoded, version)
        let access = RegionAccess(offset: 0, region: 2, count: 65536)
        let header = MessageHeader(identifier: 1, command: 9, messageSize: 32)
        // What the server may not send it does not make: it stops reading, too.
        var sent = 0
        while !stream.hasUnsent, sent < 100_000 {
            _ = stream.send(header.encoded, access.encoded)
            sent += 1
        }
        #expect(sent < 100_000)
        let start = MonotonicClock.now
        #expect(served.waits(for: "vfu/stall"))
        #expect((MonotonicClock.now - start) / 1_000_000 < 2000)
        #expect(served.waits(for: "disconnected"))
        let next = try Client(path: served.path)
        #expect(try next.readConfiguration(0, .word) == 0x1af4)
    }

    @Test func `HI-E23: a second client is told that the server is taken`() throws {
        let served = try ServedFunction { _ in
            try VirtioPCIFunction(device: ReverseDevice())
        }
        let first = try Client(path: served.path)
        for _ in 0..<20 {
            let id = refusal { _ = try Client(path: served.path) }
            // The server answers a VERSION that is there when it takes the connection.
            #expect(id == "vfu/busy" || id == "vfu/peer-gone")
        }
        #expect(try first.readConfiguration(0, .word) == 0x1af4)
    }
}

private final class NoDevices: VirtualDeviceFactory {
    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice { throw .noRoom }

    func discard(_ device: any VirtioDevice) {}
}
