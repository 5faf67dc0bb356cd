import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

/// A management device that answers whatever a test wants, and notes what it was asked.
final class HostileManagement: VirtioDevice {
    struct Command {
        let header: VirtualDeviceHeader
        let arguments: [UInt8]
        let room: Int

        var opcode: VirtualDeviceOpcode? { VirtualDeviceOpcode(header) }
    }

    let type: DeviceType
    var offeredFeatures: FeatureBits = [.version1, .managementVirtualDeviceDialect, .eventIndex]
    let queueLimits: [UInt16] = [64, 0, 16]
    let configuration: [UInt8] = []

    /// What CAP_GET answers.
    var capabilities = AdminCapabilities.all
    /// The whole writable part for a command; `nil` to keep silent. Asked first for every command.
    var answer: (Command) -> [UInt8]? = { HostileManagement.plain($0) }
    /// Commands wait in the ring meanwhile.
    var isPaused = false
    /// The status byte of every virtual device, whatever was written; `nil` for what was written.
    var statusOverride: DeviceStatus?
    private(set) var commands: [Command] = []
    private(set) var deactivations = 0
    private(set) var features: FeatureBits = []

    private var status: UInt8 = 0
    private var queue: DeviceBufferQueue?
    private var events: DeviceBufferQueue?

    init(type: DeviceType = .management) {
        self.type = type
    }

    var opcodes: [VirtualDeviceOpcode] { commands.compactMap(\.opcode) }

    /// A driver over a PCI function in this process.
    func driver(_ loop: EventLoop, timeoutMilliseconds: UInt64 = 100) throws -> ManagementDriver {
        let function = try VirtioPCIFunction(device: self)
        return try ManagementDriver(
            transport: PCITransport(function: InProcessFunction(endpoint: function)),
            loop: loop,
            timeoutMilliseconds: timeoutMilliseconds
        )
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }

    func activate(_ context: any DeviceContext) {
        features = context.features
        queue = try? DeviceBufferQueue(context: context, queue: 0)
        events = try? DeviceBufferQueue(context: context, queue: 2)
    }

    func deactivate() {
        deactivations += 1
        queue = nil
        events = nil
    }

    func queueNotified(_ queue: Int) {
        guard queue == 0, !isPaused else { return }
        while let buffer = self.queue?.next() {
            guard let header = VirtualDeviceHeader(buffer.readable) else { continue }
            let command = Command(
                header: header,
                arguments: Array(buffer.readable.dropFirst(VirtualDeviceHeader.size)),
                room: buffer.writableCount
            )
            commands.append(command)
            if let bytes = fixedAnswer(command) ?? answer(command) {
                self.queue?.complete(buffer, writing: bytes)
            }
        }
    }

    private func fixedAnswer(_ command: Command) -> [UInt8]? {
        switch command.opcode {
        case .capabilityGet:
            return [0] + Self.little(capabilities.rawValue)
        case .statusSet:
            status = command.arguments.first ?? 0
            return [0]
        case .statusGet:
            return [0, statusOverride?.rawValue ?? status]
        default:
            return nil
        }
    }

    /// Sends bytes as an event.
    func sendEvent(_ bytes: [UInt8]) {
        guard let buffer = events?.next() else { return }
        events?.complete(buffer, writing: bytes)
    }

    /// What a well-behaved device with one echo device, id 1, would answer.
    static func plain(_ command: Command) -> [UInt8] {
        let result: [UInt8] =
            switch command.opcode {
            case .create: little(UInt64(1))
            case .list: DeviceList(ids: [], hasMore: false).bytes
            case .information:
                DeviceInformation(
                    type: EchoDevice.type,
                    flags: [],
                    queueCount: 2,
                    vectorCount: 3,
                    maximumQueueSize: 64,
                    configurationSize: 8
                ).bytes
            case .queueInformation: [64] + [UInt8](repeating: 0, count: 39)
            case .mmuInformation: DeviceMMU(maximumMappings: 8).information.bytes
            case .bindConfiguration: Array(command.arguments.prefix(2))
            case .bindQueue: Array(command.arguments[2..<4])
            default: [UInt8](repeating: 0, count: command.room - 1)
            }
        return [0] + result
    }

    /// A failure with a record.
    static func failure(_ code: UInt16, _ qualifier: UInt16) -> [UInt8] {
        [1] + little(code) + little(qualifier) + little(UInt32(0))
    }

    static func little(_ value: some FixedWidthInteger) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(value)
        return writer.bytes
    }
}

/// A management device that answers nothing at all.
final class MuteManagement: VirtioDevice {
    let type = DeviceType.management
    let offeredFeatures: FeatureBits = [.version1, .managementVirtualDeviceDialect]
    let queueLimits: [UInt16] = [16, 0, 16]
    let configuration: [UInt8] = []
    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }
    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }
    func activate(_ context: any DeviceContext) {}
    func queueNotified(_ queue: Int) {}
    func deactivate() {}
}
