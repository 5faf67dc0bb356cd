import GuestMemory
import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import Virtio

/// The two control queues of this module on each other, over the registers of a PCI function.
@Suite struct ControlQueueTests {
    /// Answers each command with its bytes in reverse.
    private final class CommandDevice: VirtioDevice {
        let type = DeviceType.management
        let offeredFeatures: FeatureBits = [.indirectDescriptors, .eventIndex]
        let queueLimits: [UInt16] = [8]
        let configuration: [UInt8] = []
        private var queue: DeviceBufferQueue?

        func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

        func acceptsFeatures(_ features: FeatureBits) -> Bool { true }

        func activate(_ context: any DeviceContext) {
            do {
                queue = try DeviceBufferQueue(context: context, queue: 0)
                queueNotified(0)
            } catch {
                context.fail(DeviceFault(error.rawValue, queue: 0))
            }
        }

        func queueNotified(_ queue: Int) {
            while let command = self.queue?.next() {
                self.queue?.complete(command, writing: command.readable.reversed())
            }
        }

        func deactivate() { queue = nil }
    }

    private let device = CommandDevice()
    private let function: VirtioPCIFunction
    private let bus: InProcessFunction
    private let transport: PCITransport

    init() throws {
        function = try VirtioPCIFunction(device: device)
        bus = InProcessFunction(endpoint: function)
        transport = try PCITransport(function: bus)
    }

    private func start(
        _ arena: DMAArena,
        wanted: FeatureBits = [.indirectDescriptors, .eventIndex]
    ) throws -> DriverBufferQueue {
        var queue: DriverBufferQueue?
        _ = try DriverHandshake.run(transport, wanted: wanted) {
            (features) throws(VirtioError) in
            queue = try DriverBufferQueue(
                transport: transport,
                queue: 0,
                size: 8,
                bufferSize: 256,
                arena: arena,
                features: QueueFeatures(features),
                vector: 1
            )
        }
        return try #require(queue)
    }

    private func command(_ queue: DriverBufferQueue, _ bytes: [UInt8]) throws -> [UInt8]? {
        let token = try queue.submit(readable: bytes, writableCount: bytes.count)
        try queue.notify()
        let answer = try queue.poll()
        #expect(answer == nil || answer?.token == token)
        // Found empty, the queue asks for the next interrupt.
        #expect(try queue.poll() == nil)
        return answer?.written
    }

    @Test(
        arguments: [[], .eventIndex, .indirectDescriptors, [.eventIndex, .indirectDescriptors]]
            as [FeatureBits]
    )
    func `commands are answered for longer than the ring`(_ wanted: FeatureBits) throws {
        let event = try transport.interrupt(1)
        let queue = try start(try transport.makeArena(size: 1 << 16), wanted: wanted)
        for round in 0..<1000 {
            let bytes = [UInt8(round & 0xff), UInt8(round >> 8), 7]
            #expect(try command(queue, bytes) == bytes.reversed())
            #expect(event.drain() == 1)
        }
    }

    @Test func `HI-A30: a command before DRIVER_OK waits until then`() throws {
        let arena = try transport.makeArena(size: 1 << 16)
        var posted: DriverBufferQueue?
        _ = try DriverHandshake.run(transport, wanted: []) { (features) throws(VirtioError) in
            let queue = try DriverBufferQueue(
                transport: transport,
                queue: 0,
                size: 8,
                bufferSize: 256,
                arena: arena,
                features: QueueFeatures(features),
                vector: nil
            )
            _ = try queue.submit(readable: [1, 2], writableCount: 2)
            try queue.notify()
            #expect(try queue.poll() == nil)
            posted = queue
        }
        #expect(try posted?.poll()?.written == [2, 1])
    }

    @Test func `HI-H15, HI-A25: a ring outside memory makes the device ask for a reset`() throws {
        let outside = try DMAArena(size: 1 << 16, deviceAddress: 0x1000)
        #expect { try start(outside) } throws: { "\($0)".hasPrefix("device/needs-reset") }
        #expect(function.fault == DeviceFault("ring/area", queue: 0))
        let queue = try start(try transport.makeArena(size: 1 << 16))
        #expect(try command(queue, [1, 2]) == [2, 1])
    }

    @Test func `HI-A35: an arena that is taken away while the device runs breaks the queue`()
        throws
    {
        let arena = try transport.makeArena(size: 1 << 16)
        let queue = try start(arena)
        #expect(try command(queue, [1, 2]) == [2, 1])
        try transport.releaseArena(arena)
        #expect(try command(queue, [3, 4]) == nil)
        #expect { try transport.requireHealthy() } throws: {
            "\($0)".hasPrefix("device/needs-reset")
        }
        let fresh = try start(try transport.makeArena(size: 1 << 16))
        #expect(try command(fresh, [5, 6]) == [6, 5])
    }

    @Test func `HI-A35: another arena that comes and goes does not disturb the queue`() throws {
        let queue = try start(try transport.makeArena(size: 1 << 16))
        for round in UInt8(0)..<100 {
            let other = try transport.makeArena(size: 4096)
            #expect(try command(queue, [round, 1]) == [1, round])
            try transport.releaseArena(other)
            #expect(try command(queue, [round, 2]) == [2, round])
        }
    }

    @Test func `HI-H13: a reset in the middle leaves commands unanswered and works again`()
        throws
    {
        let arena = try transport.makeArena(size: 1 << 16)
        let queue = try start(arena)
        _ = try queue.submit(readable: [1], writableCount: 1)
        try transport.reset()
        #expect(throws: VirtioError.self) { try queue.notify() }
        #expect(try queue.poll() == nil)
        queue.release()
        let again = try start(arena)
        #expect(try command(again, [8, 9]) == [9, 8])
    }
}
