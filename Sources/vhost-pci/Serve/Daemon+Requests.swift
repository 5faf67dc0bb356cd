import ArgumentParser
import Glibc
import HostSystem

// What clients of the control socket ask for.
extension Daemon {
    /// A method with the names of its parameters.
    struct Method {
        let name: String
        var parameters: [String] = []
        var optional: [String] = []
        /// It takes the keys of a device.
        var takesDevice = false
    }

    /// All methods.
    static let methods = [
        Method(name: "config.reload"), Method(name: "device.add", takesDevice: true),
        Method(name: "device.list"), Method(name: "device.remove", parameters: ["name"]),
        Method(name: "device.show", parameters: ["name"]),
        Method(name: "log.level", optional: ["level"]), Method(name: "methods"),
        Method(name: "shutdown"), Method(name: "stats"), Method(name: "version"),
    ]

    /// Carries out a request; at level `debug` it is told.
    func answer(_ request: RPCRequest) throws -> RPCValue {
        let known = Self.methods.first { $0.name == request.method }
        func tell(_ outcome: String) {
            let name = known?.name ?? "unknown method"
            reporter.step("\(name): \(outcome)", from: "control", level: .debug)
        }
        do {
            guard let known else {
                let below = Self.methods.map(\.name).filter { $0.hasPrefix("\(request.method).") }
                let near =
                    below.isEmpty
                    ? Nearest.offer(for: request.method, among: Self.methods.map(\.name))
                    : "; there are \(below.joined(separator: ", "))"
                throw RPCError(.method, "there is no method '\(request.method.prefix(64))'\(near)")
            }
            let result = try carryOut(request, known)
            tell("done")
            return result
        } catch {
            tell(RPCError(error).id)
            throw error
        }
    }

    private func carryOut(_ request: RPCRequest, _ method: Method) throws -> RPCValue {
        if !method.takesDevice { try Self.check(request.parameters, against: method) }
        switch method.name {
        case "config.reload": return try RPCValue(encoding: try reload())
        case "device.add": return try addDevice(request.parameters)
        case "device.list": return .list(try devices.all.map { try RPCValue(encoding: $0.report) })
        case "device.show": return try RPCValue(encoding: try device(request).report)
        case "device.remove": return try removeDevice(request)
        case "log.level": return try logLevel(request.parameters["level"])
        case "methods": return Self.methodTable
        case "shutdown":
            reporter.step("asked to end by a client")
            isEnding = true
            return .object([:])
        case "stats": return try statistics()
        default: return version
        }
    }

    private static func check(
        _ parameters: [String: RPCValue],
        against method: Method
    ) throws(RPCError) {
        let names = method.parameters + method.optional
        for name in parameters.keys.sorted() where !names.contains(name) {
            throw RPCError(
                .parameters,
                "\(method.name) has no parameter '\(name.prefix(64))'"
                    + Nearest.offer(for: name, among: names)
            )
        }
        for name in method.parameters where parameters[name] == nil {
            throw RPCError(.parameters, "\(method.name): the parameter '\(name)' is missing")
        }
    }

    private static var methodTable: RPCValue {
        .list(
            methods.map { method in
                var members: [String: RPCValue] = [
                    "name": .text(method.name),
                    "parameters": .list(method.parameters.map { .text($0) }),
                ]
                if method.takesDevice {
                    members["parameters"] = .list([.text("as a device of the configuration file")])
                }
                if !method.optional.isEmpty {
                    members["optional"] = .list(method.optional.map { .text($0) })
                }
                return .object(members)
            }
        )
    }

    private var version: RPCValue {
        .object([
            "schema": .text("vhost-pci.control/1"),
            "version": .text(VhostPCI.configuration.version),
            "pid": .integer(Int64(getpid())),
            "uptime_seconds": .integer(Int64((MonotonicClock.now - started) / 1_000_000_000)),
        ])
    }

    private func device(_ request: RPCRequest) throws(RPCError) -> any ServedDevice {
        guard let name = request.parameters["name"]?.text else {
            throw RPCError(.parameters, "the parameter 'name' is a text")
        }
        guard let device = devices.device(name) else {
            throw RPCError(
                .failed,
                "there is no device '\(name.prefix(64))'"
                    + Nearest.offer(for: name, among: devices.all.map(\.settings.name)),
                id: "serve/name",
                remedy: "`vhost-pci ctl device list` lists them"
            )
        }
        return device
    }

    private func addDevice(_ parameters: [String: RPCValue]) throws -> RPCValue {
        let settings = try ConfigurationReader.read(
            device: RPCValue.object(parameters).configuration
        )
        return try change { try RPCValue(encoding: try devices.add(settings).report) }
    }

    private func removeDevice(_ request: RPCRequest) throws -> RPCValue {
        let gone = try device(request)
        return try change {
            devices.remove(gone)
            reporter.step("\(gone.settings.name): removed")
            return .object([:])
        }
    }

    private func logLevel(_ given: RPCValue?) throws(RPCError) -> RPCValue {
        if let given {
            let all = LogLevel.allCases.map(\.rawValue)
            guard let level = given.text.flatMap({ LogLevel(rawValue: $0) }) else {
                let text = given.text.map { "'\($0.prefix(64))'" } ?? "this"
                throw RPCError(
                    .parameters,
                    "\(text) is none of \(all.joined(separator: ", "))"
                        + Nearest.offer(for: given.text ?? "", among: all)
                )
            }
            if level != reporter.level {
                reporter.step("log level \(level.rawValue), asked for by a client", level: .error)
            }
            reporter.level = level
        }
        return .object(["level": .text(reporter.level.rawValue)])
    }

    private func statistics() throws -> RPCValue {
        let reports = devices.all.map(\.report)
        var connections: [String: UInt64] = [:]
        var paths: [String: String] = [:]
        for report in reports {
            connections[report.name] = report.sockets.first?.connections
            paths[report.name] = report.sockets.first?.path
        }
        var members: [String: RPCValue] = [
            "schema": .text("vhost-pci.serve-stats/1"), "workers": .list([]), "ports": .list([]),
        ]
        if let run = dataPlane.report(paths: paths, connections: connections) {
            members["workers"] = try RPCValue(encoding: run.workers)
            members["ports"] = try RPCValue(encoding: run.ports)
            members["seconds"] = .number(run.durationSeconds)
        }
        return .object(members)
    }
}
