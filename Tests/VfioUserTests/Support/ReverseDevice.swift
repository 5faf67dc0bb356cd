import GuestMemory
import HostSystem
import PCI
import Virtio
import VirtioSpec
import Virtqueue

/// A device that answers each command with its bytes in reverse, and has a window and doorbells.
final class ReverseDevice: VirtioDevice, PeerWindowProvider {
    let type = DeviceType.vhostPCINet
    let offeredFeatures: FeatureBits = [.indirectDescriptors, .eventIndex, .accessPlatform]
    let queueLimits: [UInt16] = [16, 8]
    private(set) var configuration = [UInt8](1...24)
    let peerWindow: Mapping
    let peerDoorbells: DoorbellTable

    private let file: MemoryFile
    private let identity: FileIdentity
    private var queues: [Int: DeviceBufferQueue] = [:]
    private var context: (any DeviceContext)?

    init() throws {
        file = try MemoryFile(name: "window", size: 1 << 16)
        peerWindow = try file.map()
        identity = try file.descriptor.status().identity
        peerDoorbells = try DoorbellTable(count: 4)
    }

    func peerWindowFile(_ bar: Int) -> WindowFile? {
        guard bar == 2 else { return nil }
        let areas: [Range<UInt64>] = [0..<8192, 32768..<65536]
        return WindowFile(file: file.descriptor, identity: identity, offset: 0, areas: areas)
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= 8, offset + bytes.count <= configuration.count else { return false }
        configuration.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        if bytes.first == 7 { context?.interruptConfiguration() }
        return true
    }

    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }

    func activate(_ context: any DeviceContext) {
        self.context = context
        for index in queueLimits.indices where context.queue(index) != nil {
            do {
                queues[index] = try DeviceBufferQueue(context: context, queue: index)
            } catch {
                context.fail(DeviceFault(error.rawValue, queue: index))
            }
        }
    }

    func queueNotified(_ queue: Int) {
        while let command = queues[queue]?.next() {
            queues[queue]?.complete(command, writing: command.readable.reversed())
        }
    }

    func deactivate() {
        queues = [:]
        context = nil
    }
}
