import GuestMemory
import Testing
import Virtio
import VirtioSpec

@testable import AdminQueue

/// The dialect over an object model without any queue: bytes in, bytes out.
final class DialectRig: VirtualDeviceHost {
    let factory = EchoFactory()
    var managementMemory: MemoryTable = .empty
    private(set) var events: [AdminEvent] = []
    private(set) var mask: AdminEventMask = []
    private(set) lazy var model = DeviceObjectModel(
        limits: ManagementDevice.Limits(
            maximumDevices: 4,
            maximumVectors: 4,
            maximumMappings: 4
        ),
        factory: factory,
        host: self
    )
    private(set) lazy var dialect = VirtualDeviceDialect(
        capabilities: capabilities,
        model: model,
        subscribe: { [unowned self] mask throws(AdminError) in
            guard mask.isSubset(of: .all) else { throw AdminError(.invalidField) }
            self.mask = mask
        }
    )
    private let capabilities: AdminCapabilities

    init(capabilities: AdminCapabilities = .all) {
        self.capabilities = capabilities
    }

    func send(_ event: AdminEvent) { events.append(event) }

    func forgetEvents(of id: UInt64) { events.removeAll { $0.virtualDeviceID == id } }

    /// Everything that commands can change.
    struct State: Equatable {
        let model: DeviceObjectModel.Snapshot
        let mask: AdminEventMask
        let made: Int
        let configurations: [UInt64: [UInt8]]
    }

    var state: State {
        State(
            model: model.snapshot,
            mask: mask,
            made: factory.made - factory.discarded,
            configurations: factory.living.mapValues(\.configuration)
        )
    }

    /// Sends bytes; the whole writable part comes back.
    func raw(_ readable: [UInt8], room: Int = 512) -> [UInt8] {
        dialect.execute(readable, room: room)
    }

    /// Executes a command that has to succeed, and returns its result.
    @discardableResult
    func succeed(
        _ command: VirtualDeviceCommand,
        for id: UInt64 = 0,
        sourceLocation: SourceLocation = #_sourceLocation
    ) -> [UInt8] {
        let answer = raw(command.bytes(for: id))
        #expect(answer.first == 0, "\(command.opcode.name)", sourceLocation: sourceLocation)
        return Array(answer.dropFirst())
    }

    /// Executes a command that has to fail, and checks the reason and that nothing changed.
    func fail(
        _ command: VirtualDeviceCommand,
        for id: UInt64 = 0,
        _ qualifier: AdminQualifier,
        detail: UInt32? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        fail(
            bytes: command.bytes(for: id),
            qualifier,
            detail: detail,
            sourceLocation: sourceLocation
        )
    }

    /// The same for bytes.
    func fail(
        bytes: [UInt8],
        room: Int = 512,
        _ qualifier: AdminQualifier,
        detail: UInt32? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let before = state
        let answer = raw(bytes, room: room)
        #expect(answer.first == 1, sourceLocation: sourceLocation)
        let record = AdminErrorRecord(zeroExtending: answer.dropFirst())
        #expect(record.qualifier == qualifier.rawValue, sourceLocation: sourceLocation)
        #expect(record.code == qualifier.code, sourceLocation: sourceLocation)
        if let detail { #expect(record.detail == detail, sourceLocation: sourceLocation) }
        #expect(state == before, sourceLocation: sourceLocation)
    }

    /// Creates an echo device.
    func create(_ attributes: DeviceAttributes = DeviceAttributes()) -> UInt64 {
        let answer = succeed(.create(type: EchoDevice.type, attributes: attributes.bytes))
        return WireFields(answer)[0]
    }

    /// Takes a virtual device to FEATURES_OK.
    func negotiate(_ id: UInt64, _ features: FeatureBits = .version1) {
        succeed(.statusSet([.acknowledge]), for: id)
        succeed(.statusSet([.acknowledge, .driver]), for: id)
        succeed(.driverFeaturesSet(features), for: id)
        succeed(.statusSet([.acknowledge, .driver, .featuresOK]), for: id)
        #expect(status(id).contains(.featuresOK))
    }

    /// Sets DRIVER_OK after `negotiate`.
    func run(_ id: UInt64) {
        succeed(.statusSet([.acknowledge, .driver, .featuresOK, .driverOK]), for: id)
    }

    func status(_ id: UInt64) -> DeviceStatus {
        DeviceStatus(rawValue: succeed(.statusGet, for: id).first ?? 0xff)
    }

    /// Gives a queue addresses and enables it; nothing has to be mapped for that.
    func enable(_ queue: UInt16, of id: UInt64) {
        let addresses = QueueAddresses(
            descriptorArea: 0x10_0000,
            driverArea: 0x11_0000,
            deviceArea: 0x12_0000
        )
        succeed(.queueAddressesSet(queue: queue, addresses), for: id)
        succeed(.queueEnable(queue: queue, value: 1), for: id)
    }
}
