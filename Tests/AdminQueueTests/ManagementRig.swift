import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

/// A management device behind a PCI function, and what drives it, all on one event loop.
final class ManagementRig {
    let loop: EventLoop
    let factory = EchoFactory()
    let device: ManagementDevice
    let function: VirtioPCIFunction
    let bus: InProcessFunction
    let transport: PCITransport
    let window: Mapping

    init(
        capabilities: AdminCapabilities = .all,
        limits: ManagementDevice.Limits = ManagementDevice.Limits()
    ) throws {
        loop = try EventLoop()
        window = try Mapping.anonymous(length: 1 << 16)
        device = try ManagementDevice(
            capabilities: capabilities,
            limits: limits,
            factory: factory,
            peerWindow: window,
            peerDoorbells: try DoorbellTable(count: 4),
            loop: loop
        )
        function = try VirtioPCIFunction(device: device)
        bus = InProcessFunction(endpoint: function)
        transport = try PCITransport(function: bus)
    }

    func driver() throws -> ManagementDriver {
        try ManagementDriver(transport: transport, loop: loop, timeoutMilliseconds: 500)
    }

    /// Serves the loop until nothing is ready any more.
    func settle() throws {
        for _ in 0..<4 { try loop.turn(limitMilliseconds: 0) }
    }
}

/// The driver of an echo device, the same for every transport.
final class EchoClient {
    let transport: any VirtioTransport
    let arena: DMAArena
    let features: FeatureBits
    let queue: DriverBufferQueue
    let used: EventFD
    let changed: EventFD

    init(_ transport: any VirtioTransport, wanted: FeatureBits = .eventIndex) throws {
        self.transport = transport
        let arena = try transport.makeArena(size: 1 << 16)
        self.arena = arena
        used = try transport.interrupt(1)
        changed = try transport.interrupt(0)
        var queue: DriverBufferQueue?
        features = try DriverHandshake.run(transport, wanted: wanted) {
            features throws(VirtioError) in
            try transport.bindConfigurationVector(0)
            queue = try DriverBufferQueue(
                transport: transport,
                queue: 0,
                size: 16,
                bufferSize: 512,
                arena: arena,
                features: QueueFeatures(features),
                vector: 1
            )
        }
        self.queue = try #require(queue)
    }

    /// Sends bytes and returns what came back; `nil` when nothing did.
    func echo(_ bytes: [UInt8]) throws -> [UInt8]? {
        let token = try queue.submit(readable: bytes, writableCount: bytes.count)
        try queue.notify()
        guard let completion = try queue.poll() else { return nil }
        #expect(completion.token == token)
        return completion.written
    }
}
