import GuestMemory
import HostSystem
import PCI
import Virtio
import VirtioSpec
import Virtqueue

@testable import VFIO

/// A kernel that hands out an emulated function, which may lie: BAR 0 and configuration space are the
/// device file, vectors go to the eventfds that were connected, and what is mapped for it is all that
/// it can reach.
final class EndpointKernel: FakeKernel {
    let bus: InProcessFunction
    /// Changes what a register of BAR 0 reads: offset, true value.
    var answer: ((UInt64, UInt32) -> UInt32)?
    /// Configuration bytes that read as something else.
    var bytes: [Int: UInt8] = [:]

    private static let registers: UInt64 = 0x10000
    private var arenas: [UInt64: DMAArena] = [:]
    private var raised: [Int: EventFD] = [:]
    private var connected: [Int: Int32] = [:]

    init(_ device: any VirtioDevice) throws {
        bus = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
        try super.init()
        regions = [
            0: Answer.region(size: try bus.barSize(0), offset: Self.registers, flags: 3),
            7: Answer.region(size: 256, offset: UInt64(Self.configurationOffset), flags: 3),
        ]
        interrupts[2] = Answer.interrupts(count: UInt32(try bus.interruptVectorCount), flags: 1)
    }

    /// Hands on what the function has raised.
    func deliver() {
        for (vector, event) in raised where event.drain() > 0 {
            if let descriptor = connected[vector] { EventFD.signal(descriptor) }
        }
    }

    override func read(
        _ file: FileDescriptor,
        at: UInt64,
        count: Int
    ) throws(SystemError) -> [UInt8] {
        if isGone { return [UInt8](repeating: 0xff, count: count) }
        do {
            if at >= UInt64(Self.configurationOffset) {
                let start = Int(at) - Self.configurationOffset
                var result: [UInt8] = []
                for offset in start..<(start + count) {
                    let byte = UInt8(truncatingIfNeeded: try bus.readConfiguration(offset, .byte))
                    result.append(bytes[offset] ?? byte)
                }
                return result
            }
            let offset = at - Self.registers
            let width = AccessWidth(rawValue: count) ?? .byte
            let value = try bus.readRegister(0, offset, width)
            let told = answer?(offset, value) ?? value
            return (0..<width.rawValue).map { UInt8(truncatingIfNeeded: told >> UInt32(8 * $0)) }
        } catch {
            throw SystemError("read the function", .ioFailure)
        }
    }

    override func write(
        _ file: FileDescriptor,
        at: UInt64,
        _ bytes: [UInt8]
    ) throws(SystemError) -> Int {
        if isGone { return bytes.count }
        guard let width = AccessWidth(rawValue: bytes.count) else { return 0 }
        let value = bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        do {
            if at >= UInt64(Self.configurationOffset) {
                try bus.writeConfiguration(Int(at) - Self.configurationOffset, width, value)
            } else {
                try bus.writeRegister(0, at - Self.registers, width, value)
            }
        } catch {
            throw SystemError("write the function", .ioFailure)
        }
        return bytes.count
    }

    override func setInterrupts(
        _ device: FileDescriptor,
        _ change: VFIOInterruptChange
    ) throws(SystemError) -> Int {
        guard change.index == .messageExtended else {
            return try super.setInterrupts(device, change)
        }
        do {
            if change.events.isEmpty {
                for vector in raised.keys { try bus.connectInterrupt(vector, to: nil) }
                raised = [:]
                connected = [:]
            }
            for (index, descriptor) in change.events.enumerated() {
                let vector = change.start + index
                let event = descriptor < 0 ? nil : try EventFD()
                try bus.connectInterrupt(vector, to: event)
                raised[vector] = event
                connected[vector] = descriptor < 0 ? nil : descriptor
            }
        } catch {
            throw SystemError("set interrupts", .invalidArgument)
        }
        return 0
    }

    override func mapDMA(
        _ file: FileDescriptor,
        _ memory: Mapping,
        at: UInt64
    ) throws(SystemError) {
        try super.mapDMA(file, memory, at: at)
        // The file is the arena's that is mapped here; this one stands in its place.
        let arena = DMAArena(
            file: try MemoryFile(name: "iova", size: 4096),
            mapping: memory,
            deviceAddress: at
        )
        do { try bus.mapDMA(arena) } catch { throw SystemError("map", .exists) }
        arenas[at] = arena
    }

    override func unmapDMA(
        _ container: FileDescriptor,
        at: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64 {
        if let arena = arenas.removeValue(forKey: at) {
            do { try bus.unmapDMA(arena) } catch { throw SystemError("unmap", .noSuchFile) }
        }
        return try super.unmapDMA(container, at: at, size: size)
    }

    override func reset(_ device: FileDescriptor) throws(SystemError) {
        do { try bus.reset() } catch { throw SystemError("reset", .ioFailure) }
    }
}

/// A device with one queue that plays its used ring as a test says.
final class ScriptedDevice: VirtioDevice {
    let type = DeviceType.management
    var offeredFeatures: FeatureBits = [.accessPlatform]
    var queueLimits: [UInt16] = [8]
    let configuration: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    var accepts = true
    /// What happens at a notification.
    var script: (ScriptedDevice) -> Void = { $0.answerAll() }
    private(set) var context: (any DeviceContext)?
    private var taken: UInt16 = 0

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    func acceptsFeatures(_ features: FeatureBits) -> Bool { accepts }

    func activate(_ context: any DeviceContext) {
        self.context = context
        taken = 0
    }

    func queueNotified(_ queue: Int) { script(self) }

    func deactivate() { context = nil }

    private var ring: QueueConfiguration? { context?.queue(0) }

    /// Answers every chain with its bytes backwards.
    func answerAll() {
        guard let ring, let index = number(ring.driverArea + 2, 2) else { return }
        while taken != UInt16(truncatingIfNeeded: index) {
            let slot = UInt64(taken % ring.size)
            guard let head = number(ring.driverArea + 4 + 2 * slot, 2) else { return }
            let length = reverse(head)
            put(used: slot, id: UInt32(head), length: length)
            taken &+= 1
            put(usedIndex: taken)
        }
        context?.interruptQueue(0)
    }

    /// Writes an entry of the used ring.
    func put(used slot: UInt64, id: UInt32, length: UInt32) {
        guard let ring else { return }
        write(Answer.words(id, length), at: ring.deviceArea + 4 + 8 * slot)
    }

    /// Writes the used index.
    func put(usedIndex index: UInt16) {
        guard let ring else { return }
        write([UInt8(index & 0xff), UInt8(index >> 8)], at: ring.deviceArea + 2)
    }

    /// Overwrites the whole descriptor table.
    func spoilDescriptors() {
        guard let ring else { return }
        write([UInt8](repeating: 0xa5, count: 16 * Int(ring.size)), at: ring.descriptorArea)
    }

    private func reverse(_ head: UInt64) -> UInt32 {
        guard let ring else { return 0 }
        let first = ring.descriptorArea + 16 * head
        guard let from = number(first, 8), let count = number(first + 8, 4),
            let next = number(first + 14, 2), let bytes = context?.memory.read(from, Int(count)),
            let to = number(ring.descriptorArea + 16 * next, 8)
        else { return 0 }
        write(bytes.reversed(), at: to)
        return UInt32(bytes.count)
    }

    private func number(_ address: UInt64, _ width: Int) -> UInt64? {
        context?.memory.read(address, width)?.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private func write(_ bytes: [UInt8], at address: UInt64) {
        _ = context?.memory.write(bytes, at: address)
    }
}
